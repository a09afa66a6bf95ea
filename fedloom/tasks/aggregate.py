"""Step "aggregate": the shards' sums become the next global model, if enough clients gave an update."""

from __future__ import annotations

import numpy as np
import torch

from fedloom.specs.canonical import sha256
from fedloom.tasks.client_home import server_folder
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.gather import Gathered, gather, gather_masked
from fedloom.tasks.measured import combine_figures
from fedloom.tasks.model_store import read_model, tensors_to_bytes, write_model
from fedloom.tasks.models import State
from fedloom.tasks.privacy.mechanism import spent
from fedloom.tasks.privacy.noise import noise_source, own_secret
from fedloom.tasks.scaffold.server import controls_after
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Add the weighted mean of the updates to the model (FedAvg), in float64 and in the order of the shards.

    In an evaluation there are no updates, and the clients' figures become those of the fleet.

    The clients of a shard that was recorded as lost are dropouts. Below the quorum the model stays as it is, and
    the outputs say so.

    Raises:
        ConfigurationError: when a shard has neither a result nor a record of its loss.
    """
    run = place.run
    if run.recipe.kind == "evaluate":
        return combine_figures(place)
    model = read_model(run.store, place.result("distribute")["outputs"]["model_digest"])
    privacy = run.recipe.privacy
    gathered = gather(place) if run.recipe.masking is None else gather_masked(place, model)
    enough = gathered.participants >= run.recipe.aggregation.quorum and gathered.weight > 0
    clip = None if privacy is None else float(place.result("distribute")["outputs"]["clip"])
    if enough:
        mean = mean_update(place, gathered, clip)
        with repeatable(run.recipe.threads, 0):
            norm: float | None = float(torch.stack([t.square().sum() for t in mean.values()]).sum().sqrt())
        model = {name: (tensor.to(torch.float64) + mean[name]).to(tensor.dtype) for name, tensor in model.items()}
    else:
        norm = None
    stored = write_model(run.store, model)
    return StepResult(
        {
            "model_digest": stored.sha256,
            "participants": gathered.participants,
            "cohort": sum(len(clients) for clients in cohort_shards(place)),
            "quorum": run.recipe.aggregation.quorum,
            "quorum_met": enough,
            "dropouts": gathered.dropouts,
            "samples": gathered.samples,
            "train_loss": gathered.loss,
            "update_norm": norm,
            "bytes_up": gathered.bytes_up,
            "aborted": gathered.aborted,
            "epsilon": None if privacy is None else spent(privacy, run.recipe.masking, place.round),
            "session": gathered.session,
            "clip": clip,
            "next_clip": next_clip(place, clip, gathered) if enough and clip is not None else clip,
        },
        {"model": stored, **controls_after(place, enough)},
    )


def mean_update(place: Place, gathered: Gathered, clip: float | None) -> State:
    """The weighted mean; with privacy of clients, the noisy sum over the number of clients that were expected.

    That number is fixed: dividing by how many came would tell whether one did. Under masks the sum has its noise
    already (McMahan et al. 2018, "Learning differentially private recurrent language models").
    """
    recipe, total = place.run.recipe, gathered.total
    privacy = recipe.privacy
    if privacy is None or privacy.unit == "record":
        return {name: tensor / gathered.weight for name, tensor in total.items()}
    if recipe.masking is None:
        secret, sum_of = own_secret(server_folder()), sha256(tensors_to_bytes(total))
        rng = noise_source(secret, "aggregate", place.run.run_id, place.round, sum_of)
        noise = privacy.noise_multiplier if privacy.adaptive is None else privacy.adaptive.update_noise
        assert clip is not None, "an order with privacy says its norm"
        total = {name: tensor + noise_like(tensor, noise * clip, rng) for name, tensor in sorted(total.items())}
    return {name: tensor / recipe.selection.target for name, tensor in total.items()}


def next_clip(place: Place, clip: float, gathered: Gathered) -> float:
    """The clipping norm of the next round; a fixed one stays.

    It follows a quantile of the updates' norms by C·exp(-η·(b - γ)), where b is the noisy share of the clients that
    were within C; as for the mean, the share is of the clients that were expected (Andrew et al. 2021,
    "Differentially private learning with adaptive clipping").
    """
    privacy = place.run.recipe.privacy
    if privacy is None or privacy.adaptive is None:
        return clip
    adaptive, expected = privacy.adaptive, place.run.recipe.selection.target
    secret, sum_of = own_secret(server_folder()), sha256(tensors_to_bytes(gathered.total))
    rng = noise_source(secret, "clip", place.run.run_id, place.round, sum_of, gathered.within)
    # Counts of within - 1/2 change by no more than 1/2 with a client, whence the factor in `effective_noise`.
    centred = gathered.within - gathered.participants / 2
    share = 0.5 + (centred + rng.normal(0.0, adaptive.count_noise)) / expected
    return float(clip * np.exp(-adaptive.rate * (share - adaptive.quantile)))


def noise_like(tensor: torch.Tensor, scale: float, rng: np.random.Generator) -> torch.Tensor:
    """Gaussian noise of a tensor's shape, float64."""
    return torch.from_numpy(rng.normal(0.0, scale, tuple(tensor.shape)))
