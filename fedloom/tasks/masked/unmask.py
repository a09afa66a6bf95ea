"""Step "unmask": take the remaining masks out of one range of coordinates of the sum."""

from __future__ import annotations

import numpy as np

from fedloom.tasks.masked.session import frozen, masking, server_before
from fedloom.tasks.secure_aggregation.masks import apply
from fedloom.tasks.secure_aggregation.quantise import EXTRA, ring_type
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.step import Place, StepResult

CHUNK = 1 << 22
"""Coordinates that one instance unmasks."""


def chunks(parameters: int) -> int:
    """Instances of the step for a model."""
    return -(-(parameters + EXTRA) // CHUNK)


def step(place: Place) -> StepResult:
    """Write the range of the sum; the outputs say why there is none when the session failed."""
    rules = masking(place)
    assert place.shard is not None
    start = place.shard * CHUNK
    size = min(CHUNK, rules.parameters + EXTRA - start)
    kind = np.dtype(ring_type(rules.ring_bits))
    try:
        server = server_before(place, "unmask")
        masks = server.masks()
    except AbortError as error:
        return StepResult({"aborted": str(error)})
    total = np.zeros(size, kind)
    for shard in frozen(place, "mask_update"):
        if "sum" in shard["files"]:
            file = shard["files"]["sum"]
            data = place.run.store.read(file["key"], expect=file["sha256"])
            total += np.frombuffer(data, kind, size, start * kind.itemsize)
    apply(total, masks, start)
    stored = place.run.store.write(place.key(f"unmask/chunk-{place.shard:05d}.ring"), total.tobytes())
    return StepResult({"aborted": None}, {"sum": stored})
