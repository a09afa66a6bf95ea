"""The in-process engine: every step of a plan, one after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedloom.flows.events import Listener, StepDone, silent
from fedloom.flows.losses import FINAL, settle
from fedloom.flows.plan import Plan, Step
from fedloom.flows.walk import walk
from fedloom.tasks.step import Outputs, Run, run_step


def simulate(plan: Plan, run: Run, listener: Listener = silent) -> None:
    """Carry out a plan in this process; what has finished before is not done again.

    Raises:
        RunError: when the run cannot go on.
    """
    walk(plan, _Inline(run, listener))


@dataclass(frozen=True)
class _Inline:
    run: Run
    listener: Listener

    def perform(self, step: Step, round: int, shards: Sequence[int | None]) -> list[Outputs | None]:
        return [self._instance(step, round, shard) for shard in shards]

    def _instance(self, step: Step, round: int, shard: int | None) -> Outputs | None:
        outputs, lost = attempt(self.run, step, round, shard)
        self.listener(StepDone(step.name, round, shard, outputs, lost))
        return outputs


def attempt(run: Run, step: Step, round: int, shard: int | None) -> tuple[Outputs | None, str | None]:
    """Run one instance with the step's retries.

    Returns:
        Its outputs, or why it was lost.

    Raises:
        RunError: when the run cannot go on.
    """
    left = step.retries
    while True:
        try:
            return run_step(run, step.name, round, shard), None
        except Exception as error:
            if not left or isinstance(error, FINAL):
                return None, settle(run, step, round, shard, error)
            left -= 1
