"""The commands that look at runs, as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedloom.cli import main
from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.specs.bundle import load_job
from fedloom.tasks.step import Run


@pytest.fixture
def two(make_run: Callable[..., Run]) -> tuple[Run, Run]:
    """Two runs that have ended, with another learning rate each."""
    runs = []
    for rate in (0.01, 0.02):
        run = make_run(num_rounds=1, hyperparameters={"learning_rate": rate, "optimizer": "Adam"})
        simulate(compile_plan(load_job(run.folder)), run)
        runs.append(run)
    return runs[0], runs[1]


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_runs_are_listed_shown_and_compared(two: tuple[Run, Run]) -> None:
    first, second = two
    store = first.store.url
    listed = call("runs", "list", "--store", store)
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()] == ["run", second.run_id, first.run_id]
    assert "\x1b" not in listed.output
    found = json.loads(call("runs", "list", "--store", store, "--json").output)
    assert {run["run_id"]: (run["state"], run["rounds"], run["metric"]) for run in found} == {
        run.run_id: ("ended", 1, "auc") for run in two
    }
    shown = json.loads(call("runs", "show", first.run_id, "--store", store, "--json").output)
    assert shown["summary"]["run_id"] == first.run_id
    assert "target auc" in call("runs", "show", first.run_id, "--store", store).output
    compared = call("runs", "compare", first.run_id, second.run_id, "--store", store)
    assert compared.exit_code == 0
    assert "training.learning_rate" in compared.output
    answer = json.loads(call("runs", "compare", first.run_id, second.run_id, "--store", store, "--json").output)
    assert answer["plan"] == [{"path": "training.learning_rate", "first": 0.01, "second": 0.02}]
    assert {entry["digest"]: entry["equal"] for entry in answer["digests"]} == {
        "plan": False, "fleet": True, "holdout": True, "model": False,
    }  # fmt: skip


def test_a_run_is_named_by_the_beginning_of_its_id(two: tuple[Run, Run], tmp_path: Path) -> None:
    first, second = two
    store = first.store.url
    unique = next(first.run_id[:n] for n in range(1, 99) if not second.run_id.startswith(first.run_id[:n]))
    done = call("report", unique, "--store", store, "-o", str(tmp_path / "out"), "--baseline", second.run_id)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.csv", "metrics.prom", "model_card.md", "report.html",
    ]  # fmt: skip
    assert "the difference is not its cost alone" in (tmp_path / "out" / "report.html").read_text()
    for words, message in (
        (("report", "fl-"), "'fl-' means 2 runs: "),
        (("runs", "show", "nothing"), f"there is no run 'nothing' in the run store {store}; there are fl-tiny-"),
        (("report", first.run_id, "--baseline", "fl-tony"), "there is no run 'fl-tony'"),
    ):
        failed = call(*words, "--store", store)
        assert failed.exit_code == 2
        assert message in failed.output


def test_a_store_without_runs_is_no_error(tmp_path: Path) -> None:
    assert call("runs", "list", "--store", str(tmp_path)).output == f"no runs in {tmp_path}\n"
    assert json.loads(call("runs", "list", "--store", str(tmp_path), "--json").output) == []
    assert "has none" in call("runs", "show", "x", "--store", str(tmp_path)).output


def test_a_baseline_is_refused_where_there_is_nothing_to_leave_out(tiny_job: Path, tmp_path: Path) -> None:
    done = call("simulate", str(tiny_job), "--without-privacy", "--store", str(tmp_path / "store"))
    assert done.exit_code == 2
    assert "the job promises no privacy" in done.output


def test_a_baseline_is_refused_where_the_data_demand_privacy(
    copy_example: Callable[[str], Path], tmp_path: Path
) -> None:
    job = copy_example("aircraft_accel_v1")
    contract = job / "contract.yaml"
    contract.write_text(contract.read_text().replace("enabled: false ", "enabled: true\n    epsilon: 9.0 "))
    done = call("simulate", str(job), "--without-privacy", "--store", str(tmp_path / "store"))
    assert done.exit_code == 2
    assert "the data contract demands differential privacy" in done.output
    assert not (tmp_path / "store").exists()
