"""Step "advertise_keys" (S0): the ready clients of a shard check the session's terms and make its keys."""

from __future__ import annotations

from fedloom.tasks.masked.session import play
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Collect the adverts of the shard's clients."""
    return play(place, "advertise_keys", lambda server, client: client.advertise(server.terms.encode()))
