"""Step "share_keys" (S1): the clients of a shard share their secrets among their neighbours."""

from __future__ import annotations

from fedloom.tasks.masked.session import play
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Collect the sealed shares of the shard's clients."""
    return play(place, "share_keys", lambda server, client: client.share(server.share_request(client.name)))
