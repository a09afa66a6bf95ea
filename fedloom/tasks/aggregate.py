"""Step "aggregate": the shards' sums become the next global model, if enough clients gave an update."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedloom.specs.canonical import sha256
from fedloom.tasks.client_home import server_folder
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.masked import session
from fedloom.tasks.model_store import bytes_to_tensors, read_model, tensors_to_bytes, write_model
from fedloom.tasks.models import State
from fedloom.tasks.privacy.mechanism import spent
from fedloom.tasks.privacy.noise import noise_source, own_secret
from fedloom.tasks.secure_aggregation.quantise import Quantiser, ring_type
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place, StepResult


@dataclass(frozen=True)
class Gathered:
    """What the clients of a round gave.

    Attributes:
        total: Σ weight · delta, float64; empty when there is nothing.
        weight: Σ weight.
        participants: Clients in the sum.
        dropouts: The others, with reasons.
        samples: Windows that they trained on; None where the server may not know.
        loss: Weighted mean of their losses; None where there is none, or the server may not know.
        bytes_up: Bytes that they sent.
        aborted: Why a session of secure aggregation gave no sum; None when it did.
        session: The numbers of that session.
        within: Clients whose updates were within the clipping norm, where the next round's follows from it.
    """

    total: State
    weight: float
    participants: int
    dropouts: list[dict[str, str]]
    samples: int | None
    loss: float | None
    bytes_up: int
    aborted: str | None = None
    session: dict[str, int] | None = None
    within: int = 0


def step(place: Place) -> StepResult:
    """Add the weighted mean of the updates to the model (FedAvg), in float64 and in the order of the shards.

    The clients of a shard that was recorded as lost are dropouts. Below the quorum the model stays as it is, and
    the outputs say so.

    Raises:
        ConfigurationError: when a shard has neither a result nor a record of its loss.
    """
    run = place.run
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
        {"model": stored},
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


def gather(place: Place) -> Gathered:
    """Sum the shards' sums."""
    shards = cohort_shards(place)
    results = [place.result("train", shard=i) for i in range(len(shards))]
    dropouts: list[dict[str, str]] = []
    for clients, result in zip(shards, results, strict=True):
        if "lost" in result:
            reason = f"the shard was lost: {result['lost']}"
            dropouts += [{"client": client, "reason": reason} for client in clients]
        else:
            dropouts += result["outputs"]["dropouts"]
    arrived = [(shard, result["outputs"]) for shard, result in enumerate(results) if result["files"]]
    weight = sum(outputs["weight"] for _, outputs in arrived)
    total: State = {}
    within = 0
    for shard, _ in arrived:
        if "within" in results[shard]["files"]:
            within += int(json.loads(place.file("train", "within", shard)))
        part = bytes_to_tensors(place.file("train", "update", shard), f"the update of shard {shard}")
        for name, tensor in part.items():
            total[name] = total[name] + tensor if name in total else tensor
    return Gathered(
        total=total,
        weight=weight,
        participants=sum(outputs["clients"] for _, outputs in arrived),
        dropouts=dropouts,
        samples=sum(outputs["samples"] for _, outputs in arrived),
        loss=_mean_loss([outputs for _, outputs in arrived]),
        bytes_up=sum(outputs["bytes_up"] for _, outputs in arrived),
        within=within,
    )


def gather_masked(place: Place, model: State) -> Gathered:
    """Read the sum that was opened: the server knows who is in it, and of nobody what.

    Args:
        place: The round.
        model: The model that the clients started from; an update has its names and shapes.
    """
    rules, lost = session.masking(place), session.dropouts(place)
    pieces = [place.result("unmask", i) for i in place.result("distribute")["outputs"]["chunks"]]
    sent = sum(file["bytes"] for stage in session.STAGES for file in _files(place, stage))
    aborted = next((p["outputs"]["aborted"] for p in pieces if p["outputs"]["aborted"]), None)
    if aborted is not None:
        return Gathered({}, 0.0, 0, lost, None, None, sent, aborted)
    kind = ring_type(rules.ring_bits)
    parts = [np.frombuffer(place.file("unmask", "sum", i), kind) for i in range(len(pieces))]
    quantiser = Quantiser(rules.clip, rules.bits, rules.ring_bits, rules.weight_max)
    values, weight, count = quantiser.decode(np.concatenate(parts))
    flat = torch.from_numpy(values)
    sizes = [tensor.numel() for _, tensor in sorted(model.items())]
    split = zip(sorted(model.items()), torch.split(flat, sizes), strict=True)
    total = {name: part.reshape(tensor.shape) for (name, tensor), part in split}
    terms = session.session_terms(place)
    numbers = {
        "clients": len(terms.clients),
        "neighbours": terms.neighbours,
        "threshold": terms.threshold,
        "survivors": terms.survivors,
        "ring_bits": rules.ring_bits,
        "bits": rules.bits,
    }
    return Gathered(total, weight, count, lost, None, None, sent, session=numbers)


def _mean_loss(outputs: list[dict[str, Any]]) -> float | None:
    known = [(shard["weight"], shard["loss"]) for shard in outputs if shard["loss"] is not None]
    weight = sum(own for own, _ in known)
    return sum(own * loss for own, loss in known) / weight if weight else None


def _files(place: Place, stage: str) -> list[dict[str, int]]:
    """Objects that the shards of a stage left."""
    results = [place.result(stage, shard) for shard in range(len(cohort_shards(place)))]
    return [file for result in results for file in result["files"].values()]
