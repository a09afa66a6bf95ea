"""What a run leaves for others: its model, records and report, and the versions of what is released."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import RunResult, read_result
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks import champion, export, gate
from fedloom.tasks.errors import StoreError
from fedloom.tasks.models import build_model, load_state
from fedloom.tasks.step import Place, Run
from fedloom.tasks.versions import next_version
from tests.conftest import write_job


def finished(folder: Path, store: Path, name: str = "", **changes: Any) -> tuple[RunResult, Run]:
    bundle = load_job(write_job(folder, num_rounds=1, **{"metrics": {"auc": 0.3}, **changes}))
    plan = compile_plan(bundle)
    run = open_run(plan, bundle, str(store), name)
    simulate(plan, run)
    return read_result(run), run


@pytest.mark.parametrize("form", ["safetensors", "pytorch"])
def test_an_exported_model_is_the_runs_own(tmp_path: Path, form: str) -> None:
    result, run = finished(tmp_path / "job", tmp_path / "s", output={"format": form, "destination": "06/REGISTRY/"})
    path = Path(result.exported["model"])
    assert path.parent == tmp_path / "s" / "exports" / "06" / "REGISTRY" / run.run_id
    own = load(run.store.read(f"models/{result.model_digest}.safetensors"))
    data = path.read_bytes()
    there = load(data) if form == "safetensors" else torch.load(io.BytesIO(data), weights_only=True)
    assert there.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(there[name], tensor)
    load_state(build_model(run.recipe.model), there)


def test_exporting_again_is_harmless_and_mends_what_is_gone(tmp_path: Path) -> None:
    output = {"format": "pytorch", "report_format": "json"}
    result, run = finished(tmp_path / "job", tmp_path / "s", output=output)
    before = {role: Path(path).read_bytes() for role, path in result.exported.items()}
    assert before.keys() == {"model", "metadata", "report"}
    Path(result.exported["model"]).unlink()
    again, _ = finished(tmp_path / "job", tmp_path / "s", output=output)
    assert again == result
    export.step(Place(run, 0))
    assert {role: Path(path).read_bytes() for role, path in result.exported.items()} == before


def test_a_withheld_model_is_not_exported(tmp_path: Path) -> None:
    result, run = finished(tmp_path / "job", tmp_path / "s", metrics={"auc": 0.9999}, output={"report_format": "json"})
    assert result.gate["decision"] == "fail"
    assert result.exported.keys() == {"metadata", "report"}
    outputs = Place(run, 0).result("export")["outputs"]
    assert outputs["kept_back"] == {"model": "the gate did not let it pass: fail"}
    metadata = json.loads(Path(result.exported["metadata"]).read_text())
    assert metadata["model"] is None
    assert metadata["summary"]["gate"]["decision"] == "fail"


def test_records_are_those_of_the_run_and_the_missing_are_named(tmp_path: Path) -> None:
    names = [
        "client_participation",
        "aggregation_weights",
        "quality_check_results",
        "byzantine_exclusions",
        "convergence_metrics",
    ]
    result, run = finished(tmp_path / "job", tmp_path / "s", output={"metadata_includes": names})
    found = json.loads(Path(result.exported["metadata"]).read_text())
    assert found["missing"].keys() == {"quality_check_results", "byzantine_exclusions"}
    assert found["client_participation"][0]["cohort"] == list(run.fleet.clients)
    shares = found["aggregation_weights"][0]["shares"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert found["convergence_metrics"][0]["metrics"] == result.metrics


def test_records_of_checked_updates_and_of_private_ones(tmp_path: Path) -> None:
    checks = {"quality_checks": {"checks": [{"name": "gradient_norm", "threshold": 1e-6, "action": "flag"}]}}
    output = {"metadata_includes": ["quality_check_results", "aggregation_weights"]}
    result, _ = finished(tmp_path / "a", tmp_path / "s", aggregation_config=checks, output=output)
    found = json.loads(Path(result.exported["metadata"]).read_text())
    assert len(found["quality_check_results"][0]["flagged"]) == 6
    assert sum(found["aggregation_weights"][0]["shares"].values()) == pytest.approx(1.0)
    masked, _ = finished(
        tmp_path / "b", tmp_path / "s", output=output, secure_aggregation=True, orchestration_config={"shard_size": 6}
    )
    missing = json.loads(Path(masked.exported["metadata"]).read_text())["missing"]
    assert "masks or privacy" in missing["aggregation_weights"]


def test_a_destination_may_be_a_url(tmp_path: Path) -> None:
    import fsspec

    output = {"destination": "memory://registry/models", "report_format": "markdown"}
    result, run = finished(tmp_path / "job", tmp_path / "s", output=output)
    assert result.exported["model"] == f"memory://registry/models/{run.run_id}/model.safetensors"
    assert fsspec.filesystem("memory").exists(f"/registry/models/{run.run_id}/metadata.json")
    assert Path(result.exported["report"]).is_relative_to(tmp_path / "s" / "exports")


REFUSED = [
    ({"format": "onnx"}, "not built", "format onnx"),
    ({"format": "tensorflow"}, "not built", "format tensorflow"),
    ({"report_format": "pdf"}, "not built", "pdf"),
    ({"metadata_includes": ["weather"]}, "not built", "no record weather"),
    ({"destination": "/etc"}, "error", "absolute path"),
    ({"destination": "../up"}, "error", "leads out of its folder"),
    ({"report_destination": "dataset:imu-watch/x"}, "error", "a data set takes no files"),
    ({"destination": "s3://user:word@bucket/x"}, "error", "password or token"),
]


@pytest.mark.parametrize(("output", "severity", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_outputs_that_cannot_be_are_refused_by_name(
    tmp_path: Path, output: dict[str, Any], severity: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        compile_plan(load_job(write_job(tmp_path / "job", output=output)))
    (problem,) = caught.value.problems
    assert (problem.severity, problem.line > 0) == (severity, True)
    assert message in problem.message


VERSIONS = [
    ("1.0.0", None, "minor", "1.0.0"),
    ("1.0.0", "1.0.0", None, "1.0.0"),
    ("1.0.0", "1.4.2", "major", "2.0.0"),
    ("1.0.0", "1.4.2", "minor", "1.5.0"),
    ("1.0.0", "1.4.2", "patch", "1.4.3"),
    ("3.0.0", "1.4.2", "minor", "3.0.0"),
    ("1.0.0", "1.9.9", "patch", "1.9.10"),
]


@pytest.mark.parametrize(("own", "before", "part", "expected"), VERSIONS)
def test_versions_grow_by_one_part(own: str, before: str | None, part: str | None, expected: str) -> None:
    assert next_version(own, before, part) == expected


@given(st.tuples(*[st.integers(0, 30)] * 3), st.tuples(*[st.integers(0, 30)] * 3), st.sampled_from(["major", "minor"]))
def test_a_new_version_is_later_than_the_one_before(own: Any, before: Any, part: str) -> None:
    made = next_version(".".join(map(str, own)), ".".join(map(str, before)), part)
    assert tuple(map(int, made.split("."))) > before


def test_each_release_has_its_version_and_a_repeated_gate_the_same(tmp_path: Path) -> None:
    rules = {"versioning": {"auto_version": True, "increment": "minor"}}
    first, run = finished(tmp_path / "job", tmp_path / "s", **rules)
    second, other = finished(tmp_path / "job", tmp_path / "s", name="b", **rules)
    assert (first.model_version, second.model_version) == ("1.0.0", "1.1.0")
    again = gate.step(Place(other, 1))
    assert again.outputs["model_version"] == "1.1.0"
    pointer = champion.current(run)
    assert pointer is not None
    assert (pointer["run_id"], pointer["model_version"]) == (other.run_id, "1.1.0")


def test_without_auto_version_the_job_says_the_version(tmp_path: Path) -> None:
    finished(tmp_path / "job", tmp_path / "s")
    second, _ = finished(tmp_path / "job", tmp_path / "s", name="b", versioning={"auto_version": False})
    assert second.model_version == "1.0.0"


def test_a_pointer_without_a_version_is_damaged(make_run: Callable[..., Run]) -> None:
    run = make_run(versioning={"auto_version": True})
    holder = {"run_id": "other", "model_version": "new"}
    with pytest.raises(StoreError, match="has no version"):
        champion.promote(run, 1, {}, holder)
