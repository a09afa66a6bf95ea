"""What an engine tells while it works, so that one display serves all engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedloom.tasks.step import Outputs


@dataclass(frozen=True)
class StepDone:
    """An instance of a step has finished (or was found finished).

    Attributes:
        step: Its name.
        round: Its round; 0 outside rounds.
        shard: Its shard; None when the step does not fan out.
        outputs: What it returned; None when it was lost.
        lost: Why it was lost.
    """

    step: str
    round: int
    shard: int | None
    outputs: Outputs | None
    lost: str | None = None


Listener = Callable[[StepDone], None]


def silent(event: StepDone) -> None:
    """A listener that does nothing."""
