"""Step "aggregate": the shards' sums become the next global model, if enough clients gave an update."""

from __future__ import annotations

import torch

from fedloom.tasks.determinism import repeatable
from fedloom.tasks.model_store import bytes_to_tensors, read_model, write_model
from fedloom.tasks.models import State
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Add the weighted mean of the updates to the model (FedAvg), in float64 and in the order of the shards.

    The clients of a shard that was recorded as lost are dropouts. Below the quorum the model stays as it is, and
    the outputs say so.

    Raises:
        ConfigurationError: when a shard has neither a result nor a record of its loss.
    """
    run, shards = place.run, cohort_shards(place)
    results = [place.result("train", shard=i) for i in range(len(shards))]
    dropouts: list[dict[str, str]] = []
    for clients, result in zip(shards, results, strict=True):
        if "lost" in result:
            reason = f"the shard was lost: {result['lost']}"
            dropouts += [{"client": client, "reason": reason} for client in clients]
        else:
            dropouts += result["outputs"]["dropouts"]
    arrived = [(shard, result) for shard, result in enumerate(results) if result["files"]]

    sent = place.result("distribute")["outputs"]["model_digest"]
    model = read_model(run.store, sent)
    weight = sum(result["outputs"]["weight"] for _, result in arrived)
    participants = sum(result["outputs"]["clients"] for _, result in arrived)
    enough = participants >= run.recipe.aggregation.quorum and weight > 0
    if enough:
        mean = {name: tensor / weight for name, tensor in _total(place, [shard for shard, _ in arrived]).items()}
        with repeatable(run.recipe.threads, 0):
            norm: float | None = float(torch.stack([t.square().sum() for t in mean.values()]).sum().sqrt())
        model = {name: (tensor.to(torch.float64) + mean[name]).to(tensor.dtype) for name, tensor in model.items()}
    else:
        norm = None
    stored = write_model(run.store, model)
    loss = sum(r["outputs"]["weight"] * r["outputs"]["loss"] for _, r in arrived) / weight if weight else None
    return StepResult(
        {
            "model_digest": stored.sha256,
            "participants": participants,
            "cohort": sum(len(clients) for clients in shards),
            "quorum": run.recipe.aggregation.quorum,
            "quorum_met": enough,
            "dropouts": dropouts,
            "samples": sum(result["outputs"]["samples"] for _, result in arrived),
            "train_loss": loss,
            "update_norm": norm,
            "bytes_up": sum(result["outputs"]["bytes_up"] for _, result in arrived),
        },
        {"model": stored},
    )


def _total(place: Place, shards: list[int]) -> State:
    """Sum of the shards' sums."""
    total: State = {}
    for shard in shards:
        part = bytes_to_tensors(place.file("train", "update", shard), f"the update of shard {shard}")
        for name, tensor in part.items():
            total[name] = total[name] + tensor if name in total else tensor
    return total
