"""The in-process engine: every step of a plan, one after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedloom.flows.events import Listener, StepDone, silent
from fedloom.flows.plan import Plan, Step
from fedloom.flows.walk import walk
from fedloom.tasks.errors import RunError, ShardLostError, one_line
from fedloom.tasks.step import Outputs, Run, record_loss, run_step


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
        return [self._instance(step, round, shard, len(shards)) for shard in shards]

    def _instance(self, step: Step, round: int, shard: int | None, of: int) -> Outputs | None:
        outputs, lost = attempt(self.run, step, round, shard)
        self.listener(StepDone(step.name, round, shard, of, outputs, lost))
        return outputs


def attempt(run: Run, step: Step, round: int, shard: int | None) -> tuple[Outputs | None, str | None]:
    """Run one instance with the step's retries; for one that may be lost, return the reason instead of raising.

    A `RunError` is about the run and not about the shard: it is never retried and always raised.
    """
    left = step.retries
    while True:
        try:
            return run_step(run, step.name, round, shard), None
        except RunError:
            raise
        except ShardLostError as lost:
            return None, str(lost)
        except Exception as error:
            reason = one_line(error)
            if not left and step.may_be_lost and shard is not None:
                record_loss(run, step.name, round, shard, reason)
                return None, reason
            if not left:
                at = f"step {step.name} of round {round}" if round else f"step {step.name}"
                raise RunError(f"{at} failed: {reason}") from error
            left -= 1
