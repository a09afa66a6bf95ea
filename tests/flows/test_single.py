"""One instance at a time, as an engine of containers runs them: what it leaves, and what the next makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import Plan
from fedloom.flows.runs import open_run
from fedloom.flows.single import run_instance, write_outputs
from fedloom.specs.bundle import load_job
from fedloom.tasks import train
from fedloom.tasks.errors import ConfigurationError, RunError
from fedloom.tasks.step import Run


@pytest.fixture
def opened(tiny_job: Path, tmp_path: Path) -> tuple[Run, Plan]:
    bundle = load_job(tiny_job)
    plan = compile_plan(bundle)
    run = open_run(plan, bundle, str(tmp_path / "store"))
    for name, round in (("validate", 0), ("initialise", 0), ("select", 1), ("distribute", 1)):
        run_instance(run, plan, name, round)
    return run, plan


def train_shards(run: Run, plan: Plan, shards: list[int]) -> None:
    for shard in shards:
        run_instance(run, plan, "train", 1, shard)


def failing(error: Exception) -> Callable[[Any], Any]:
    def step(_place: Any) -> Any:
        raise error

    return step


def test_a_shard_that_left_nothing_is_lost_once_the_engine_has_given_it_up(opened: tuple[Run, Plan]) -> None:
    run, plan = opened
    train_shards(run, plan, [0, 2])
    with pytest.raises(ConfigurationError, match="shard 1, must run first"):
        run_instance(run, plan, "aggregate", 1)
    outputs = run_instance(run, plan, "aggregate", 1, settled=True)
    assert outputs["participants"] == 4
    assert {d["reason"] for d in outputs["dropouts"]} == {
        "the shard was lost: it ended without a result or a word: killed, evicted or out of time"
    }
    assert "lost" in run_instance(run, plan, "train", 1, 1)  # coming too late, it stays lost


def test_the_reason_of_the_last_attempt_is_kept(opened: tuple[Run, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    run, plan = opened
    train_shards(run, plan, [0, 1])
    monkeypatch.setattr(train, "step", failing(OSError("disk gone")))
    with pytest.raises(RunError, match="step train failed: OSError: disk gone"):
        run_instance(run, plan, "train", 1, 2)
    dropouts = run_instance(run, plan, "aggregate", 1, settled=True)["dropouts"]
    assert {d["reason"] for d in dropouts} == {"the shard was lost: OSError: disk gone"}


def test_an_attempt_that_succeeds_makes_up_for_those_that_failed(
    opened: tuple[Run, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = opened
    with monkeypatch.context() as patch:
        patch.setattr(train, "step", failing(OSError("disk gone")))
        with pytest.raises(RunError):
            run_instance(run, plan, "train", 1, 2)
    train_shards(run, plan, [0, 1, 2])
    assert run_instance(run, plan, "aggregate", 1, settled=True)["dropouts"] == []


@pytest.mark.parametrize("kind", [RunError, ConfigurationError])
def test_what_is_wrong_with_the_run_is_no_dropout(
    opened: tuple[Run, Plan], monkeypatch: pytest.MonkeyPatch, kind: type[RunError]
) -> None:
    run, plan = opened
    train_shards(run, plan, [0, 1])
    monkeypatch.setattr(train, "step", failing(kind("the class is not there")))
    with pytest.raises(kind):
        run_instance(run, plan, "train", 1, 2)
    with pytest.raises(kind, match="step train, shard 2: the class is not there") as caught:
        run_instance(run, plan, "aggregate", 1, settled=True)
    assert type(caught.value) is kind


def test_a_run_that_has_not_ended_has_no_report(opened: tuple[Run, Plan]) -> None:
    run, plan = opened
    with pytest.raises(ConfigurationError, match="has not ended yet"):
        run_instance(run, plan, "report")


def test_outputs_as_files(tmp_path: Path) -> None:
    write_outputs({"stop": False, "shards": [0, 1], "decision": None, "why": "a b", "auc": 0.5}, tmp_path / "new")
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert written == {"stop": "false", "shards": "[0, 1]", "decision": "", "why": "a b", "auc": "0.5"}
