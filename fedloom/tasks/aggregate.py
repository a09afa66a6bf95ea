"""Step "aggregate": the clients' updates become the next global model, if enough of them count."""

from __future__ import annotations

import numpy as np
import torch

from fedloom.specs.canonical import sha256
from fedloom.tasks.aggregation.record import outputs_of, write_quality
from fedloom.tasks.aggregation.server import first_state, server_step
from fedloom.tasks.client_home import server_folder
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.gather import Gathered, gather, gather_masked, gather_single
from fedloom.tasks.measured import combine_figures
from fedloom.tasks.model_store import MODEL_SUFFIX, bytes_to_tensors, read_model, tensors_to_bytes, write_model
from fedloom.tasks.models import State
from fedloom.tasks.privacy.mechanism import spent
from fedloom.tasks.privacy.noise import noise_source, own_secret
from fedloom.tasks.recipe import ServerOptimizerRecipe
from fedloom.tasks.scaffold.server import controls_after
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place, StepResult
from fedloom.tasks.store import Stored


def step(place: Place) -> StepResult:
    """Add the weighted mean of the updates to the model (FedAvg), in float64 and in the order of the shards.

    In an evaluation there are no updates, and the clients' figures become those of the fleet.

    Another rule may take the place of the mean (`fedloom.tasks.aggregation.combine`), and an optimiser of the
    server that of the addition (`fedloom.tasks.aggregation.server`). The clients of a shard that was recorded as lost
    are dropouts. Below the quorum, and where the rule finds no mean, the model stays as it is, and the outputs say so.

    Raises:
        ConfigurationError: when a shard has neither a result nor a record of its loss.
    """
    run = place.run
    if run.recipe.kind == "evaluate":
        return combine_figures(place)
    model = read_model(run.store, model_before(place))
    privacy = run.recipe.privacy
    gathered = _gathered(place, model)
    made = gathered.combined
    enough = gathered.participants >= run.recipe.aggregation.quorum and gathered.withheld is None
    clip = None if privacy is None else float(place.result("distribute")["outputs"]["clip"])
    mean = mean_update(place, gathered, clip) if enough else None
    norm: float | None = None
    files: dict[str, Stored] = {} if made is None else {"quality": write_quality(place, made)}
    with repeatable(run.recipe.threads, 0):
        if run.recipe.aggregation.server is not None:
            mean, files["server_state"] = optimised(place, run.recipe.aggregation.server, model, mean)
        if mean is not None:
            norm = float(torch.stack([t.square().sum() for t in mean.values()]).sum().sqrt())
            model = {name: (tensor.to(torch.float64) + mean[name]).to(tensor.dtype) for name, tensor in model.items()}
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
            **outputs_of(made),
            "withheld": gathered.withheld,
        },
        {"model": stored, **files, **controls_after(place, enough)},
    )


def model_before(place: Place) -> str:
    """The digest of the model that the round's updates are changes of; given ones are no client's order."""
    if place.run.recipe.kind == "aggregate":
        return str(place.result("initialise", round=0)["outputs"]["model_digest"])
    return str(place.result("distribute")["outputs"]["model_digest"])


def _gathered(place: Place, model: State) -> Gathered:
    recipe = place.run.recipe
    if recipe.masking is not None:
        return gather_masked(place, model)
    return gather_single(place) if recipe.single_updates else gather(place)


def optimised(
    place: Place, rule: ServerOptimizerRecipe, model: State, mean: State | None
) -> tuple[State | None, Stored]:
    """What the server's optimiser makes of the mean update, and its state in the store.

    The state goes on from the round before; a round that does not count leaves it as it was.
    """
    store = place.run.store
    if place.round == 1:
        state = first_state(rule, model)
    else:
        before = place.result("aggregate", round=place.round - 1)["files"]["server_state"]
        state = bytes_to_tensors(store.read(before["key"], expect=before["sha256"]), before["key"])
    change: State | None = None
    if mean is not None:
        change, state = server_step(rule, state, mean)
    return change, store.write(place.key("server_state" + MODEL_SUFFIX), tensors_to_bytes(state))


def mean_update(place: Place, gathered: Gathered, clip: float | None) -> State:
    """The weighted mean; with privacy of clients, the noisy sum over the number of clients that were expected.

    That number is fixed: dividing by how many came would tell whether one did. Under masks the sum has its noise
    already (McMahan et al. 2018, "Learning differentially private recurrent language models").
    """
    recipe, total = place.run.recipe, gathered.total
    if gathered.combined is not None:
        return gathered.combined.mean
    privacy = recipe.privacy
    if privacy is None or privacy.unit == "record":
        by = gathered.weight if recipe.aggregation.normalize else 1.0
        return {name: tensor / by for name, tensor in total.items()}
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
