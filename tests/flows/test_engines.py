"""One plan, three ways to run it, one model."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.events import StepDone
from fedloom.flows.inline import attempt, simulate
from fedloom.flows.plan import Resources, Step
from fedloom.flows.prefect_server import prefect_api
from fedloom.flows.result import RunResult, read_result
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.tasks import train
from fedloom.tasks.errors import ConfigurationError, RunError
from tests.conftest import write_job


def run_inline(folder: Path, store: Path, events: list[StepDone] | None = None, **options: int) -> RunResult:
    bundle = load_job(folder)
    plan = compile_plan(bundle, **options)
    run = open_run(plan, bundle, str(store))
    simulate(plan, run, (events if events is not None else []).append)
    return read_result(run)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.delenv("PREFECT_API_URL", raising=False)
        with prefect_api() as url:
            yield url


def run_prefect(folder: Path, store: Path, events: list[StepDone] | None = None, **options: Any) -> dict[str, Any]:
    from fedloom.flows.prefect_flow import federated_job, listening

    token = listening.set((events if events is not None else []).append)
    try:
        result: dict[str, Any] = federated_job(job=str(folder), store=str(store), **options)
        return result
    finally:
        listening.reset(token)


def run_steps(folder: Path, store: Path, environment: dict[str, str]) -> str:
    """Each step in a process of its own, as containers would; returns the digest of the last model."""

    def step(name: str, *options: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "fedloom", "step", name, str(folder), "--store", str(store), *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        outputs: dict[str, Any] = json.loads(done.stdout)
        return outputs

    plan = compile_plan(load_job(folder))
    for one in plan.setup:
        step(one.name)
    for round in range(1, plan.loop.rounds + 1):
        outputs: dict[str, dict[str, Any]] = {}
        for one in plan.loop.steps:
            at = ("--round", str(round))
            if one.fan_out is None:
                outputs[one.name] = step(one.name, *at)
                continue
            for shard in outputs[one.fan_out.step][one.fan_out.output]:
                step(one.name, *at, "--shard", str(shard))
    assert outputs["gate"]["stop"]
    for one in plan.finish:
        last = step(one.name)
    assert last["model_digest"] == outputs["aggregate"]["model_digest"]
    return str(last["model_digest"])


PLAIN: dict[str, Any] = {"min_clients": 3, "num_rounds": 2}
VARIATES: dict[str, Any] = {
    **PLAIN,
    "algorithm": "SCAFFOLD",
    "hyperparameters": {
        "learning_rate": 0.05,
        "optimizer": "SGD",
        "lr_schedule": {"type": "exponential", "gamma": 0.5},
    },
}
PRIVATE: dict[str, Any] = {
    "num_rounds": 1,
    "differential_privacy": None,
    "secure_aggregation": None,
    "privacy_config": {
        "differential_privacy": {
            "enabled": True,
            "mechanism": "DP-SGD",
            "epsilon": 8.0,
            "delta": 1e-5,
            "max_grad_norm": 1.0,
        },
        "secure_aggregation": {"enabled": True, "threshold": 3, "dropout_tolerance": 2},
    },
    "min_clients": 4,
}
TWO_SERVERS = {**PRIVATE, "privacy_config": {**PRIVATE["privacy_config"]}}
TWO_SERVERS["privacy_config"]["secure_aggregation"] = {"enabled": True, "protocol": "two_server"}


SINGLE: dict[str, Any] = {
    **PLAIN,
    "algorithm": "FedAdam",
    "aggregation_config": {
        "byzantine_robust": "multi_krum",
        "quality_checks": {"checks": [{"name": "loss_improvement", "min_improvement": -1.0, "action": "exclude"}]},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [PLAIN, VARIATES, PRIVATE, TWO_SERVERS, SINGLE],
    ids=["plain", "SCAFFOLD", "masks and noise", "two servers", "single updates"],
)
def test_the_same_model_in_process_on_prefect_and_step_by_step(
    tmp_path: Path, prefect: str, quiet_environment: dict[str, str], changes: dict[str, Any]
) -> None:
    orchestration = {"shard_size": 3, "aggregation": {"min_quorum": 3}}
    folder = write_job(tmp_path / "job", orchestration_config=orchestration, **changes)
    inline = run_inline(folder, tmp_path / "inline")
    on_prefect = run_prefect(folder, tmp_path / "prefect")
    assert on_prefect["model_digest"] == inline.model_digest
    assert on_prefect["metrics"] == inline.metrics
    # Noise follows from their secrets.
    own = {name: os.environ[name] for name in ("FEDLOOM_CLIENTS", "FEDLOOM_SERVER", "FEDLOOM_SECOND_SERVER")}
    assert run_steps(folder, tmp_path / "steps", {**quiet_environment, **own}) == inline.model_digest


def test_an_engine_continues_what_the_other_began(tiny_job: Path, tmp_path: Path, prefect: str) -> None:
    whole = run_inline(tiny_job, tmp_path / "whole")
    bundle = load_job(tiny_job)
    plan = compile_plan(bundle)
    run = open_run(plan, bundle, str(tmp_path / "split"))

    def stop_early(event: StepDone) -> None:
        if (event.round, event.step) == (2, "train"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(plan, run, stop_early)
    assert run_prefect(tiny_job, tmp_path / "split")["model_digest"] == whole.model_digest


def test_seeds_and_names_set_runs_apart(tiny_job: Path, tmp_path: Path) -> None:
    first, other = (run_inline(tiny_job, tmp_path, seed=seed, rounds=1) for seed in (1, 2))
    assert first.model_digest != other.model_digest
    bundle = load_job(tiny_job)
    plan = compile_plan(bundle, rounds=1)
    named = open_run(plan, bundle, str(tmp_path), "2026-11-22")
    simulate(plan, named)
    assert read_result(named).model_digest == run_inline(tiny_job, tmp_path, rounds=1).model_digest
    with pytest.raises(ConfigurationError, match="run name"):
        open_run(plan, bundle, str(tmp_path), "../up")


def test_every_instance_is_told_once_and_in_order(tiny_job: Path, tmp_path: Path, prefect: str) -> None:
    inline: list[StepDone] = []
    on_prefect: list[StepDone] = []
    run_inline(tiny_job, tmp_path / "a", inline, rounds=1)
    run_prefect(tiny_job, tmp_path / "b", on_prefect, rounds=1)
    a_round = ["select", "distribute", "train", "train", "train", "aggregate", "evaluate", "gate"]
    assert [event.step for event in inline] == ["validate", "initialise", *a_round, "report"]
    assert on_prefect == inline


def test_the_run_graph_on_prefect_reads_as_the_dag(tiny_job: Path, tmp_path: Path, prefect: str) -> None:
    run_prefect(tiny_job, tmp_path, rounds=1, name="graph")
    from prefect.client.orchestration import get_client

    async def look() -> tuple[dict[str, Any], list[Any]]:
        async with get_client() as client:
            flow_run = next(r for r in await client.read_flow_runs() if r.name.endswith("graph"))
            for _ in range(100):  # task runs are recorded a moment after they end
                tasks = [t for t in await client.read_task_runs() if t.flow_run_id == flow_run.id]
                if len(tasks) == 11 and all(t.state and t.state.is_final() for t in tasks):
                    break
                await asyncio.sleep(0.2)
            artifacts = [a for a in await client.read_artifacts() if a.flow_run_id == flow_run.id]
            return {t.name: t for t in tasks}, artifacts

    tasks, artifacts = asyncio.run(look())
    shards = {f"round 001 train shard {i:02d}" for i in range(3)}
    rest = {f"round 001 {n}" for n in ("select", "distribute", "aggregate", "evaluate", "gate")}
    assert set(tasks) == {"validate", "initialise", "report"} | shards | rest
    waits = tasks["round 001 aggregate"].task_inputs["wait_for"]
    assert {str(i.id) for i in waits} == {str(tasks[name].id) for name in shards}
    assert {(a.type, a.key) for a in artifacts} == {
        ("table", "round-metrics"), ("table", "gate"), ("progress", "rounds"),
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["inline", "prefect"])
def test_a_lost_shard_does_not_end_the_run(
    tiny_job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, engine: str
) -> None:
    if engine == "prefect":
        request.getfixturevalue("prefect")
    whole = train.step

    def breaks_on_the_first(place: Any) -> Any:
        if place.shard == 0:
            raise OSError("node gone")
        return whole(place)

    monkeypatch.setattr(train, "step", breaks_on_the_first)
    events: list[StepDone] = []
    engine_run = run_inline if engine == "inline" else run_prefect
    result: Any = engine_run(tiny_job, tmp_path, events, rounds=1)
    participation = result.participation if engine == "inline" else result["participation"]
    assert participation == {"asked": 6, "updates": 4}
    assert [event.lost for event in events if event.lost] == ["OSError: node gone"]
    assert engine_run(tiny_job, tmp_path, rounds=1) == result


def test_retries_are_counted_and_errors_of_the_run_are_not_retried(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def breaks(error: Exception) -> Any:
        def step(place: Any) -> Any:
            calls.append(1)
            raise error

        return step

    step = Step("train", (), Resources(1, None), retries=2)
    run = make_run()
    monkeypatch.setattr(train, "step", breaks(OSError("x")))
    with pytest.raises(RunError, match="step train of round 1 failed: OSError: x"):
        attempt(run, step, 1, 0)
    assert len(calls) == 3
    monkeypatch.setattr(train, "step", breaks(ConfigurationError("y")))
    with pytest.raises(ConfigurationError):
        attempt(run, step, 1, 0)
    assert len(calls) == 4
