"""What it means when an instance of a step has failed for good; the same on every engine."""

from __future__ import annotations

from fedloom.flows.plan import Step
from fedloom.tasks.errors import RunError, ShardLostError, one_line
from fedloom.tasks.losses import record_loss
from fedloom.tasks.step import Run

FINAL = (RunError, ShardLostError)
"""Errors that trying again cannot mend: they are about the run, or say that the shard is lost already."""


def settle(run: Run, step: Step, round: int, shard: int | None, error: Exception) -> str:
    """Record the loss of a shard, or end the run.

    Returns:
        Why the shard was lost.

    Raises:
        RunError: when the error is about the run, or the step may not be lost.
    """
    if isinstance(error, RunError):
        raise error
    if isinstance(error, ShardLostError):
        return str(error)
    reason = one_line(error)
    if step.may_be_lost and shard is not None:
        record_loss(run, step.name, round, shard, reason)
        return reason
    at = f"step {step.name} of round {round}" if round else f"step {step.name}"
    raise RunError(f"{at} failed: {reason}") from error
