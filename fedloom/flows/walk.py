"""How every engine goes through a Plan: set up, then round after round until the loop says stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fedloom.flows.plan import OutputRef, Plan, Step
from fedloom.tasks.step import Outputs


class Performer(Protocol):
    """What an engine provides: it carries out the instances of one step and waits for them."""

    def perform(self, step: Step, round: int, shards: Sequence[int | None]) -> list[Outputs | None]:
        """Run a step, one instance for each shard (`None`: the step does not fan out).

        Returns:
            The outputs in the order of the shards; None for an instance that was lost for good.
        """


def walk(plan: Plan, performer: Performer) -> None:
    """Carry out a plan.

    Raises:
        RunError: when a step that may not be lost fails for good.
    """
    for step in plan.setup:
        performer.perform(step, 0, [None])
    for round in range(1, plan.loop.rounds + 1):
        done: dict[str, Outputs] = {}
        for step in plan.loop.steps:
            shards: Sequence[int | None] = [None] if step.fan_out is None else _read(done, step.fan_out)
            outputs = performer.perform(step, round, shards)
            if step.fan_out is None and outputs[0] is not None:
                done[step.name] = outputs[0]
        if _read(done, plan.loop.until):
            break
    for step in plan.finish:
        performer.perform(step, 0, [None])


def _read(done: dict[str, Outputs], ref: OutputRef) -> Any:
    return done[ref.step][ref.output]
