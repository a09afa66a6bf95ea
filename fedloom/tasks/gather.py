"""What the clients of a round gave, gathered from the shards: in the open, or as a sum that masks hide."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fedloom.tasks.aggregation.combine import Combined, combine
from fedloom.tasks.aggregation.updates import Update, read_updates
from fedloom.tasks.halves import session as halves
from fedloom.tasks.losses import LOST_SHARD
from fedloom.tasks.masked import session
from fedloom.tasks.model_store import bytes_to_tensors
from fedloom.tasks.models import State
from fedloom.tasks.secure_aggregation.masks import Ring
from fedloom.tasks.secure_aggregation.quantise import Quantiser, ring_type
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place


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
        combined: What became of single updates, where the server compares them; then there is no total.
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
    combined: Combined | None = None

    @property
    def withheld(self) -> str | None:
        """Why clients gave updates and there is no mean of them; None where there is one, or no updates."""
        if self.combined is not None:
            return self.combined.withheld
        return "no client that gave an update has a weight" if self.participants and not self.weight > 0 else None


def updates_step(place: Place) -> str:
    """The step that updates come from."""
    return "collect" if place.run.recipe.kind == "aggregate" else "train"


def gather(place: Place) -> Gathered:
    """Sum the shards' sums."""
    shards = cohort_shards(place)
    results = [place.result(updates_step(place), shard=i) for i in range(len(shards))]
    dropouts: list[dict[str, str]] = []
    for clients, result in zip(shards, results, strict=True):
        if "lost" in result:
            reason = f"{LOST_SHARD}: {result['lost']}"
            dropouts += [{"client": client, "reason": reason} for client in clients]
        else:
            dropouts += result["outputs"]["dropouts"]
    arrived = [(shard, result["outputs"]) for shard, result in enumerate(results) if result["files"]]
    weight = sum(outputs["weight"] for _, outputs in arrived)
    total: State = {}
    within = 0
    for shard, _ in arrived:
        if "update" not in results[shard]["files"]:
            continue
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


def gather_single(place: Place) -> Gathered:
    """Read the updates of single clients and make one of them."""
    step = updates_step(place)
    shards = [i for i in range(len(cohort_shards(place))) if "updates" in place.result(step, i)["files"]]
    updates: list[Update] = []
    for shard in shards:
        updates += read_updates(place.file(step, "updates", shard), f"the updates of shard {shard}")
    now = place.round if step == "train" else int(place.result("select")["outputs"]["now"])
    made = combine(place.run.recipe.aggregation, updates, now)
    return replace(
        gather(place),
        weight=made.weight,
        participants=made.participants,
        samples=made.samples,
        loss=made.loss,
        combined=made,
    )


def client_figures(place: Place) -> dict[str, dict[str, float]]:
    """Samples, loss, norm of the update and weight of each client that gave one; empty where privacy is promised."""
    found: dict[str, dict[str, float]] = {}
    for shard in range(len(cohort_shards(place))):
        if "clients" in place.result("train", shard)["files"]:
            found |= json.loads(place.file("train", "clients", shard))
    return found


def gather_masked(place: Place, model: State) -> Gathered:
    """Read the sum that was opened: the server knows who is in it, and of nobody what.

    Args:
        place: The round.
        model: The model that the clients started from; an update has its names and shapes.
    """
    rules = session.masking(place)
    two = rules.protocol == "two_server"
    stages = halves.STAGES if two else session.STAGES
    lost = session.dropouts(place, stages) + (halves.refused(place) if two else [])
    sent = sum(file["bytes"] for stage in stages for file in _files(place, stage))
    try:
        opened = halves.opened(place) if two else unmasked(place)
    except AbortError as error:
        return Gathered({}, 0.0, 0, lost, None, None, sent, str(error))
    quantiser = Quantiser(rules.clip, rules.bits, rules.ring_bits, rules.weight_max)
    values, weight, count = quantiser.decode(opened)
    flat = torch.from_numpy(values)
    sizes = [tensor.numel() for _, tensor in sorted(model.items())]
    split = zip(sorted(model.items()), torch.split(flat, sizes), strict=True)
    total = {name: part.reshape(tensor.shape) for (name, tensor), part in split}
    terms = session.session_terms(place)
    shared = {"servers": 2} if two else {"neighbours": terms.neighbours, "threshold": terms.threshold}
    numbers = {
        "clients": len(terms.clients),
        **shared,
        "survivors": terms.survivors,
        "ring_bits": rules.ring_bits,
        "bits": rules.bits,
    }
    return Gathered(total, weight, count, lost, None, None, sent, session=numbers)


def unmasked(place: Place) -> Ring:
    """The sum, from the pieces in which its masks were taken out.

    Raises:
        AbortError: when the session gave none.
    """
    pieces = place.result("distribute")["outputs"]["chunks"]
    for i in pieces:
        if aborted := place.result("unmask", i)["outputs"]["aborted"]:
            raise AbortError(aborted)
    kind = ring_type(session.masking(place).ring_bits)
    return np.concatenate([np.frombuffer(place.file("unmask", "sum", i), kind) for i in pieces])


def _mean_loss(outputs: list[dict[str, Any]]) -> float | None:
    known = [(shard["weight"], shard["loss"]) for shard in outputs if shard["loss"] is not None]
    weight = sum(own for own, _ in known)
    return sum(own * loss for own, loss in known) / weight if weight else None


def _files(place: Place, stage: str) -> list[dict[str, int]]:
    """Objects that the shards of a stage left."""
    results = [place.result(stage, shard) for shard in range(len(cohort_shards(place)))]
    return [file for result in results for file in result["files"].values()]
