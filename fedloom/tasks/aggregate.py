"""Step "aggregate": the shards' sums become the next global model, if enough clients gave an update."""

from __future__ import annotations

from typing import Any

import torch

from fedloom.tasks.determinism import repeatable
from fedloom.tasks.model_store import bytes_to_tensors, read_model, write_model
from fedloom.tasks.models import State
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Add the weighted mean of the updates to the model (FedAvg), in float64 and in the order of the shards.

    A shard without a result is lost: its clients are dropouts. Below the quorum the model stays as it is, and
    the outputs say so.
    """
    run = place.run
    shards: list[list[str]] = run.store.read_json(place.key("decision.json"))["shards"]
    results = [place.find("train", shard=i) for i in range(len(shards))]
    dropouts: list[dict[str, str]] = []
    for clients, result in zip(shards, results, strict=True):
        lost = [{"client": client, "reason": "the shard was lost"} for client in clients]
        dropouts += lost if result is None else result["outputs"]["dropouts"]
    arrived = [result for result in results if result is not None and result["files"]]

    sent = place.result("distribute")["outputs"]["model_digest"]
    model = read_model(run.store, sent)
    weight = sum(result["outputs"]["weight"] for result in arrived)
    participants = sum(result["outputs"]["clients"] for result in arrived)
    enough = participants >= run.recipe.aggregation.quorum and weight > 0
    if enough:
        mean = {name: tensor / weight for name, tensor in _total(place, arrived).items()}
        with repeatable(run.recipe.threads, 0):
            norm: float | None = float(torch.stack([t.square().sum() for t in mean.values()]).sum().sqrt())
        model = {name: (tensor.to(torch.float64) + mean[name]).to(tensor.dtype) for name, tensor in model.items()}
    else:
        norm = None
    stored = write_model(run.store, model)
    loss = sum(r["outputs"]["weight"] * r["outputs"]["loss"] for r in arrived) / weight if weight else None
    return StepResult(
        {
            "model_digest": stored.sha256,
            "participants": participants,
            "cohort": sum(len(clients) for clients in shards),
            "quorum": run.recipe.aggregation.quorum,
            "quorum_met": enough,
            "dropouts": dropouts,
            "samples": sum(result["outputs"]["samples"] for result in arrived),
            "train_loss": loss,
            "update_norm": norm,
            "bytes_up": sum(result["outputs"]["bytes_up"] for result in arrived),
        },
        {"model": stored},
    )


def _total(place: Place, arrived: list[Any]) -> State:
    """Sum of the shards' sums."""
    total: State = {}
    for result in arrived:
        file = result["files"]["update"]
        part = bytes_to_tensors(place.run.store.read(file["key"], expect=file["sha256"]), file["key"])
        for name, tensor in part.items():
            total[name] = total[name] + tensor if name in total else tensor
    return total
