"""Step "check_first": the first server says of which clients it holds a message that it can open."""

from __future__ import annotations

from fedloom.tasks.halves.session import check
from fedloom.tasks.secure_aggregation.two_server import FIRST
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Name the clients, for the other server to compare."""
    return check(place, FIRST)
