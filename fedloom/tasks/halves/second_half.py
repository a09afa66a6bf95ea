"""Step "second_half": the second server adds its halves of the updates of the clients that both servers hold."""

from __future__ import annotations

from fedloom.tasks.halves.session import half
from fedloom.tasks.secure_aggregation.two_server import SECOND
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Write the half of the sum; the outputs say why there is none when the session failed."""
    return half(place, SECOND)
