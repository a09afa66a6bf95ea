"""The Prefect engine: a plan as one flow, with one task run for each step and shard.

Importing this module imports Prefect; set up its environment before (`fedloom.flows.prefect_server`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Task, allow_failure, flow, get_run_logger
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from fedloom.flows.compile import compile_plan
from fedloom.flows.data import prepare_data
from fedloom.flows.events import Listener, StepDone, silent
from fedloom.flows.losses import FINAL, settle
from fedloom.flows.plan import Plan, Step
from fedloom.flows.result import read_result
from fedloom.flows.runs import open_run
from fedloom.flows.walk import walk
from fedloom.specs.bundle import load_job, resolve_job
from fedloom.tasks.errors import RunError
from fedloom.tasks.rounds import read_rounds
from fedloom.tasks.step import Outputs, Run, run_step

_task_runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1)

listening: ContextVar[Listener] = ContextVar("listening", default=silent)
"""Who is told of every finished step, when the flow is called in this process."""


def _flow_run_name() -> str:
    parameters = flow_run.parameters
    return Path(str(parameters["job"])).name + (f" {parameters['name']}" if parameters.get("name") else "")


@flow(
    name="fedloom",
    flow_run_name=_flow_run_name,
    task_runner=_task_runner,
    persist_result=False,
    validate_parameters=True,
)
def federated_job(
    job: str, store: str, seed: int | None = None, rounds: int | None = None, name: str = ""
) -> dict[str, Any]:
    """Run a federated job from its specs.

    Args:
        job: A job folder, or the name of a packaged example.
        store: URL of the run store.
        seed: Replaces the job's seed.
        rounds: Replaces the job's number of rounds.
        name: Sets runs of one plan apart.

    Returns:
        The run's result (`fedloom.flows.result.RunResult`) as a dict.
    """
    bundle = load_job(resolve_job(job))
    plan = compile_plan(bundle, seed, rounds)
    run = open_run(plan, bundle, store, name)
    get_run_logger().info("run %s, plan %s", run.run_id, run.plan_digest)
    prepare_data(bundle, get_run_logger().info)
    performer = _Prefect(plan, run, listening.get())
    try:
        walk(plan, performer)
    except RunError:
        _publish_rounds(run)
        raise
    _publish_rounds(run)
    result = read_result(run)
    create_table_artifact(
        result.gate["checks"],
        key="gate",
        description=f"Gate of {run.run_id}: {result.gate['decision']} ({result.gate['stop_reason']})",
    )
    return asdict(result)


@dataclass
class _Prefect:
    """Submits the instances of a step, each waiting for the instances of the steps that it needs."""

    plan: Plan
    run: Run
    listener: Listener
    futures: dict[str, list[PrefectFuture[Outputs]]] = field(default_factory=dict)
    last: list[PrefectFuture[Outputs]] = field(default_factory=list)
    progress: UUID | None = None

    def perform(self, step: Step, round: int, shards: Sequence[int | None]) -> list[Outputs | None]:
        needed = [future for need in step.needs for future in self.futures[need]] or self.last
        before = [allow_failure(future) for future in needed]  # what a loss means, its step decided
        futures = [self._task(step, round, shard).submit(return_state=False, wait_for=before) for shard in shards]
        self.futures[step.name] = self.last = futures
        outputs = []
        for shard, future in zip(shards, futures, strict=True):
            value, lost = self._outcome(step, round, shard, future)
            self.listener(StepDone(step.name, round, shard, value, lost))
            outputs.append(value)
        if step is self.plan.loop.steps[-1]:
            self._show_progress(round)
        return outputs

    def _task(self, step: Step, round: int, shard: int | None) -> Task[[], Outputs]:
        def instance() -> Outputs:
            return run_step(self.run, step.name, round, shard)

        label = (f"round {round:03d} " if round else "") + step.name
        return Task(
            fn=instance,
            name=step.name,
            task_run_name=label if shard is None else f"{label} shard {shard:02d}",
            retries=step.retries,
            retry_condition_fn=lambda _task, _run, state: not isinstance(state.result(raise_on_failure=False), FINAL),
            persist_result=False,
            cache_policy=NO_CACHE,  # the run store knows what is done, also after a crash
        )

    def _outcome(
        self, step: Step, round: int, shard: int | None, future: PrefectFuture[Outputs]
    ) -> tuple[Outputs | None, str | None]:
        try:
            return future.result(), None
        except Exception as error:
            return None, settle(self.run, step, round, shard, error)

    def _show_progress(self, round: int) -> None:
        done = 100.0 * round / self.plan.loop.rounds
        if self.progress is None:
            made = create_progress_artifact(done, key="rounds", description=f"Rounds of {self.run.run_id}")
            self.progress = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(self.progress, done)


def _publish_rounds(run: Run) -> None:
    """Round metrics as a table, where people who use the UI look; also for a run that could not go on."""
    key = run.key("round.jsonl")
    if not run.store.exists(key):
        return
    rounds = [
        {
            "round": line["round"],
            "clients": f"{line['participants']}/{line['cohort']}",
            "loss": line["train_loss"],
            **line["metrics"],
        }
        for line in read_rounds(run.store.read(key))
    ]
    create_table_artifact(rounds, key="round-metrics", description=f"Rounds of {run.run_id}")
