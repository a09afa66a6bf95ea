"""The Plan: what runs, in which order, how often. Neutral to engines, and without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedloom.specs.canonical import digest
from fedloom.tasks.recipe import Recipe


@dataclass(frozen=True)
class Resources:
    """What a step needs: CPU cores, memory in bytes (None where it cannot be known beforehand), and an accelerator."""

    cpus: int
    memory_bytes: int | None
    accelerator: bool = False


@dataclass(frozen=True)
class OutputRef:
    """One output of a step, by name."""

    step: str
    output: str


@dataclass(frozen=True)
class Measure:
    """An output of a step that people watch over many runs.

    Attributes:
        output: Its name.
        kind: A number, or a word such as a decision (empty while there is none).
        meaning: What it says, for dashboards.
    """

    output: str
    kind: Literal["number", "word"]
    meaning: str


@dataclass(frozen=True)
class Step:
    """One step of a DAG.

    Attributes:
        name: A key of `fedloom.tasks.step.STEPS`.
        needs: Steps of the same part that must have finished.
        resources: What one instance needs.
        retries: How often a failed instance is tried again.
        timeout_s: Seconds after which an instance may be stopped; None for no limit.
        fan_out: The list of shards that the step runs over, one instance each; None for a single instance.
        may_be_lost: An instance that fails for good does not end the run: the quorum judges what is missing.
        at_clients: It does what clients do, and needs the folders that are the clients' own.
        at_server: It needs the folder that is the server's own.
        at_second_server: It needs the folder that is the second server's own, where there are two.
        measures: Outputs that engines with a monitoring system publish there.
    """

    name: str
    needs: tuple[str, ...]
    resources: Resources
    retries: int = 0
    timeout_s: float | None = None
    fan_out: OutputRef | None = None
    may_be_lost: bool = False
    at_clients: bool = False
    at_server: bool = False
    at_second_server: bool = False
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True)
class Loop:
    """Steps that run once a round, at most `rounds` times, until an output is true."""

    rounds: int
    steps: tuple[Step, ...]
    until: OutputRef


@dataclass(frozen=True)
class Plan:
    """A job, compiled.

    Attributes:
        format: Version of this description.
        job_id: The job.
        setup: Steps before the rounds.
        loop: The rounds.
        finish: Steps after the rounds.
        recipe: What the steps read.
    """

    format: int
    job_id: str
    setup: tuple[Step, ...]
    loop: Loop
    finish: tuple[Step, ...]
    recipe: Recipe

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in the order in which they first run."""
        return (*self.setup, *self.loop.steps, *self.finish)


def plan_digest(plan: Plan) -> str:
    """SHA-256 of the plan's canonical JSON, 64 hex digits: the name of the recipe that a run follows."""
    return digest(plan)
