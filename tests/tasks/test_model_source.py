"""A trained model to start from: where it may lie, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.plan import plan_digest
from fedloom.flows.result import read_result
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks.errors import ConfigurationError, RunError
from fedloom.tasks.model_source import resolve
from fedloom.tasks.model_store import read_model, tensors_to_bytes
from fedloom.tasks.models import build_model, float_state
from fedloom.tasks.step import Run, run_step
from tests.conftest import write_job

MakeRun = Callable[..., Run]


def trained(run: Run, seed: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return float_state(build_model(run.recipe.model))


def put(folder: Path, run: Run, seed: int = 3) -> Path:
    path = folder / "base.safetensors"
    path.write_bytes(tensors_to_bytes(trained(run, seed)))
    return path


def test_a_file_of_the_job_folder_is_the_model_of_round_one(make_run: MakeRun, tiny_job: Path) -> None:
    put(tiny_job, make_run())
    run = make_run(model_source="base.safetensors")
    outputs = run_step(run, "initialise")
    for name, tensor in trained(run).items():
        assert torch.equal(read_model(run.store, outputs["model_digest"])[name], tensor)
    assert outputs["source_digest"] == outputs["model_digest"]
    run_step(run, "select", 1)
    assert run_step(run, "distribute", 1)["model_digest"] == outputs["model_digest"]


def test_another_file_is_another_plan_and_a_changed_one_is_refused(make_run: MakeRun, tiny_job: Path) -> None:
    put(tiny_job, make_run())
    run = make_run(model_source="base.safetensors")
    put(tiny_job, run, seed=4)
    assert plan_digest(compile_plan(load_job(tiny_job))) != run.plan_digest
    with pytest.raises(ConfigurationError, match=r"base\.safetensors has changed since the plan was made"):
        run_step(run, "initialise")


def test_counters_in_a_file_are_left_out_and_half_precision_is_widened(make_run: MakeRun, tiny_job: Path) -> None:
    state = trained(make_run())
    stored = {**{n: t.half() for n, t in state.items()}, "steps": torch.tensor(7)}
    (tiny_job / "base.safetensors").write_bytes(save(stored))
    run = make_run(model_source="base.safetensors")
    start = read_model(run.store, run_step(run, "initialise")["model_digest"])
    assert {n: t.dtype for n, t in start.items()} == {n: torch.float32 for n in state}


def test_a_run_and_the_champion_of_another_job_are_found_in_the_store(make_run: MakeRun) -> None:
    first = make_run(metrics={"auc": 0.0}, job_id="fl-base", num_rounds=1)
    simulate(compile_plan(load_job(first.folder)), first)
    ended = read_result(first)
    assert ended.gate["promoted"]
    for source in (f"run:{first.run_id}", "champion:fl-base", "champion:base"):
        run = make_run(model_source=source)
        assert run_step(run, "initialise")["model_digest"] == ended.model_digest
    again = make_run(job_id="fl-base", model_source="champion")
    assert run_step(again, "initialise")["source_digest"] == ended.model_digest


def test_the_model_that_a_run_began_with_stays_when_the_champion_moves(make_run: MakeRun) -> None:
    first = make_run(metrics={"auc": 0.0}, num_rounds=1)
    simulate(compile_plan(load_job(first.folder)), first)
    run = make_run(model_source="champion")
    before = run_step(run, "initialise")
    pointer = run.store.read_json("champions/fl-tiny.json")
    run.store.write_json("champions/fl-tiny.json", {**pointer, "model_digest": "0" * 64})
    assert run_step(run, "initialise") == before


def test_a_url_is_read_and_stored(make_run: MakeRun) -> None:
    run = make_run(model_source="memory://models/base.safetensors")
    with fsspec.open("memory://models/base.safetensors", "wb") as file:
        file.write(tensors_to_bytes(trained(run)))
    assert run_step(run, "initialise")["source_digest"]
    with pytest.raises(RunError, match="cannot read memory://models/none"):
        resolve(run, "memory://models/none.safetensors")


def test_a_model_of_another_network_is_refused(make_run: MakeRun, tiny_job: Path) -> None:
    put(tiny_job, make_run(model_hyperparameters={"hidden_dims": [9]}))
    with pytest.raises(ConfigurationError, match=r"model_source base\.safetensors: .* not of this architecture"):
        run_step(make_run(model_source="base.safetensors"), "initialise")


MISSING = {
    "champion": "no model of job fl-tiny has passed the gate",
    "champion:other": "no model of job fl-other",
    "run:fl-tiny-0123": "has no run fl-tiny-0123 that has ended",
}


@pytest.mark.parametrize("source", MISSING)
def test_what_the_store_does_not_have_is_named(make_run: MakeRun, source: str) -> None:
    with pytest.raises(ConfigurationError, match=MISSING[source]):
        run_step(make_run(model_source=source), "initialise")


@pytest.mark.parametrize(("content", "word"), [(b"x", "no safetensors"), (save({}), "holds no parameters")])
def test_a_file_that_is_no_model_is_refused(make_run: MakeRun, tiny_job: Path, content: bytes, word: str) -> None:
    (tiny_job / "base.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError, match=word):
        run_step(make_run(model_source="base.safetensors"), "initialise")


WRONG: list[tuple[str, str]] = [
    ("06-MODELS/REGISTRY.md#trained-model-v1-0-0", "'06-MODELS/REGISTRY.md' is a document, not a model"),
    ("model.pt", "names no .safetensors file"),
    ("../up.safetensors", "leads out of its folder"),
    ("none.safetensors", "there is no file none.safetensors"),
    ("champion:Not a job", "is no job id"),
    ("run:", "is no run id"),
    ("dataset:imu-watch/m.safetensors", "a data set holds no models"),
    ("s3://user:word@bucket/m.safetensors", "credentials belong in the environment"),
]


@pytest.mark.parametrize(("source", "word"), WRONG)
def test_a_source_that_can_be_no_model_is_an_error_of_the_plan_and_not_of_the_spec(
    tmp_path: Path, source: str, word: str
) -> None:
    bundle = load_job(write_job(tmp_path / "job", model_source=source))
    with pytest.raises(SpecError) as caught:
        compile_plan(bundle)
    (problem,) = caught.value.problems
    assert word in problem.message
    assert problem.path == "model_source"
    assert "champion:JOB_ID" in str(problem.hint)


def test_where_it_came_from_stands_in_the_evidence(make_run: MakeRun, tiny_job: Path) -> None:
    put(tiny_job, make_run())
    run = make_run(model_source="base.safetensors", num_rounds=1)
    simulate(compile_plan(load_job(run.folder)), run)
    evidence: dict[str, Any] = run.store.read_json(run.key("round-00001", "evidence.json"))
    assert evidence["model_source"] == "base.safetensors"
    assert evidence["model_source_digest"] == run_step(run, "initialise")["source_digest"]
