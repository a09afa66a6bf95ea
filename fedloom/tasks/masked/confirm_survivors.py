"""Step "confirm_survivors" (S3): the surviving clients of a shard sign whose vectors are in the sum."""

from __future__ import annotations

from fedloom.tasks.masked.session import play
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Collect the confirmations of the shard's clients."""
    return play(place, "confirm_survivors", lambda server, client: client.confirm(server.survivors_request()))
