"""Step "collect": fetch the given updates of one shard of clients and check that each is one."""

from __future__ import annotations

import json

import torch

from fedloom.specs.canonical import sha256
from fedloom.specs.update_index import UpdateEntry
from fedloom.tasks.aggregation.updates import Update, write_updates
from fedloom.tasks.errors import RunError, StoreError, one_line
from fedloom.tasks.given import GivenError, read_given
from fedloom.tasks.model_store import bytes_to_tensors, read_model
from fedloom.tasks.models import State
from fedloom.tasks.select import shard_clients
from fedloom.tasks.step import Place, StepResult

_LARGEST = 8
"""Bytes of a number at most; what is larger than the model in these is no update of it."""
_ROOM = 1 << 20


def step(place: Place) -> StepResult:
    """Read the updates of the shard's clients, in the order of their ids.

    An update counts when its file has the SHA-256 that the index says, and holds the tensors of the model with finite
    numbers. Any other is a dropout with its reason.
    """
    run = place.run
    model = read_model(run.store, place.result("initialise", round=0)["outputs"]["model_digest"])
    entries = json.loads(place.file("select", "entries"))
    updates: list[Update] = []
    dropouts: list[dict[str, str]] = []
    moved = 0
    for client in shard_clients(place):
        entry = UpdateEntry.model_validate(entries[client])
        try:
            data = read_given(run, entry.file, _LARGEST * sum(t.numel() for t in model.values()) + _ROOM)
            delta = checked(data, entry, model)
        except RunError:
            raise
        except GivenError as reason:
            dropouts.append({"client": client, "reason": f"{entry.file}: {reason}"})
            continue
        except Exception as error:  # whatever a file holds is no concern of the others
            dropouts.append({"client": client, "reason": f"{entry.file}: {one_line(error)}"})
            continue
        moved += len(data)
        weight = roster_weight(place, client) if entry.weight is None else entry.weight
        updates.append(Update(client, delta, weight, entry.samples, entry.loss, entry.loss_before, entry.round))
    outputs = {
        "clients": len(updates),
        "dropouts": dropouts,
        "weight": float(len(updates)),  # what they count by is found where they are compared
        "loss": None,
        "samples": sum(update.samples for update in updates),
        "bytes_up": moved,
    }
    return StepResult(outputs, {"updates": write_updates(place, updates)} if updates else {})


def roster_weight(place: Place, client: str) -> float:
    """A client's custom weight in the fleet; 1 where the job has no such weights."""
    column, fleet = place.run.recipe.aggregation.weight_column, place.run.fleet
    if column is None:
        return 1.0
    return float(fleet.attributes[column][fleet.rows[client]])  # type: ignore[arg-type]


def checked(data: bytes, entry: UpdateEntry, model: State) -> State:
    """The update in a file, float32.

    Args:
        data: The file.
        entry: What the index says of it.
        model: The model that it changes.

    Raises:
        GivenError: when it is none.
    """
    if sha256(data) != entry.sha256:
        raise GivenError(f"its SHA-256 is {sha256(data)[:12]}…, the index says {entry.sha256[:12]}…")
    try:
        delta = bytes_to_tensors(data, "it")
    except StoreError as error:
        raise GivenError("it is no safetensors file") from error
    strange = sorted(delta.keys() ^ model.keys())
    if strange:
        raise GivenError(f"its tensors are not those of the model: {', '.join(strange[:3])}")
    for name, tensor in delta.items():
        if tensor.shape != model[name].shape:
            raise GivenError(f"{name} has shape {list(tensor.shape)}, the model's has {list(model[name].shape)}")
        if not tensor.is_floating_point():
            raise GivenError(f"{name} holds {tensor.dtype}, an update is of floating-point numbers")
        delta[name] = tensor.to(torch.float32)
        if not bool(torch.isfinite(delta[name]).all()):
            raise GivenError(f"{name} holds numbers that are not finite")
    return delta
