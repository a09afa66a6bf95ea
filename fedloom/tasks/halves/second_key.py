"""Step "second_key": the second server makes its key pair, and tells the public half."""

from __future__ import annotations

from fedloom.tasks.secure_aggregation.two_server import SECOND
from fedloom.tasks.server_keys import public_key
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Say which key clients seal to; the private half stays in the server's own folder."""
    return StepResult({"public": public_key(SECOND)})
