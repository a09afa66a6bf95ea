"""Step "mask_update" (S2): the clients of a shard mask their updates; the shard's masked vectors leave as one sum."""

from __future__ import annotations

import numpy as np

from fedloom.tasks.masked.session import masking, play, take_update
from fedloom.tasks.secure_aggregation.client import Client, RefusedError
from fedloom.tasks.secure_aggregation.masks import Ring
from fedloom.tasks.secure_aggregation.messages import decode_vector
from fedloom.tasks.secure_aggregation.quantise import ring_type
from fedloom.tasks.secure_aggregation.server import Server
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Add the masked vectors of the shard's clients. Only who gave one, and the sum, leave the step."""
    kind = ring_type(masking(place).ring_bits)
    total: Ring | None = None

    def answer(server: Server, client: Client) -> bytes:
        nonlocal total
        kept = take_update(place, server.terms, client.name)
        if kept is None:
            raise RefusedError(f"{client.name}: its update is gone")
        masked = client.mask(server.mask_request(client.name), np.frombuffer(kept, kind))
        vector = decode_vector(masked, server.terms)
        total = vector.copy() if total is None else total + vector
        return b""

    result = play(place, "mask_update", answer)
    if total is None:
        return result
    summed = place.run.store.write_content(place.key("session"), ".ring", total.tobytes())
    return StepResult(result.outputs, {**result.files, "sum": summed})
