"""The updates of single clients, for rules that compare them: one object for the clients of a shard."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from safetensors.torch import save

from fedloom.specs.canonical import canonical_json
from fedloom.tasks.errors import StoreError
from fedloom.tasks.model_store import bytes_to_tensors
from fedloom.tasks.models import State
from fedloom.tasks.step import Place
from fedloom.tasks.store import Stored

_ABOUT = "updates"


@dataclass(frozen=True)
class Update:
    """What one client gave.

    Attributes:
        client: Its id.
        delta: New minus received parameters, float32.
        weight: Its custom weight; counts where the weights are custom.
        samples: Windows that it trained on.
        loss: Mean loss per window over its last local epoch; None where nobody may see it.
        loss_before: Mean loss per window of the received model on the same windows; None where nobody asked.
        round: The round for which it was made.
    """

    client: str
    delta: State
    weight: float
    samples: int
    loss: float | None
    loss_before: float | None
    round: int


def write_updates(place: Place, updates: Sequence[Update]) -> Stored:
    """Write the updates of a shard as one safetensors object.

    Tensors are named INDEX/PARAMETER; who and what an index is stands in the object's metadata, so that the object
    alone is enough.
    """
    tensors = {
        f"{index:05d}/{name}": tensor.contiguous()
        for index, update in enumerate(updates)
        for name, tensor in sorted(update.delta.items())
    }
    about = [{f.name: getattr(u, f.name) for f in fields(Update) if f.name != "delta"} for u in updates]
    # One key only: the order of several would differ from process to process.
    data = save(tensors, {_ABOUT: canonical_json([_finite(figures) for figures in about]).decode()})
    return place.run.store.write(place.key(f"train/shard-{place.shard or 0:05d}.updates.safetensors"), bytes(data))


def read_updates(data: bytes, name: str) -> list[Update]:
    """The updates of a shard.

    Args:
        data: What `write_updates` wrote.
        name: What to call it in messages.

    Raises:
        StoreError: when these are no updates.
    """
    tensors = bytes_to_tensors(data, name)
    try:
        (size,) = struct.unpack("<Q", data[:8])
        about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_ABOUT])
        deltas: list[State] = [{} for _ in about]
        for key, tensor in tensors.items():
            index, _, parameter = key.partition("/")
            deltas[int(index)][parameter] = tensor
        return [Update(delta=delta, **figures) for delta, figures in zip(deltas, about, strict=True)]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise StoreError(f"{name} holds no updates of clients: {error!r}") from error


def _finite(figures: dict[str, object]) -> dict[str, object]:
    """JSON has no NaN: a figure that is no number is none."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in figures.items()}
