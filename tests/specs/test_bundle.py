"""Job folders: companions, contracts, and what keeps a job from being loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedloom.specs.bundle import bundle_from_documents, example_names, load_job, resolve_job
from fedloom.specs.problems import SpecError
from tests.specs.jobs import CONTRACT, changed, long_job


def write(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as error:
        load_job(path)
    return str(error.value)


def reading(reference: str) -> dict[str, Any]:
    return changed(long_job(), "model_config.input_schema.reference", reference)


def test_a_folder_with_only_a_job(tmp_path: Path) -> None:
    write(tmp_path / "job.yaml", long_job())
    bundle = load_job(tmp_path)
    assert (bundle.job.job_id, bundle.fleet, bundle.selector, bundle.contract) == ("fl-test", None, None, None)
    assert load_job(tmp_path / "job.yaml").job == bundle.job


def test_problems_of_all_files_are_raised_together(tmp_path: Path) -> None:
    write(tmp_path / "job.yaml", changed(long_job(), "training_config.batch_size", 0))
    (tmp_path / "selector.yaml").write_text("selector_metadata: {}\n")
    (tmp_path / "rollout.yaml").write_text("a: [\n")
    write(tmp_path / "schedule.yaml", {"rollout_metadata": {}})
    shown = refused(tmp_path)
    for part in ("job.yaml", "selector.yaml", "rollout.yaml", "is a rollout spec, a schedule spec is expected"):
        assert part in shown


@pytest.mark.parametrize("top", ["contracts", "DATA_CONTRACTS"])
def test_a_contract_by_name_is_found_above_the_job(tmp_path: Path, top: str) -> None:
    path = write(tmp_path / top / "imu" / "1.0.0" / "data_contract.yaml", CONTRACT)
    write(tmp_path / "jobs" / "j" / "job.yaml", reading("imu:1.0.0"))
    bundle = load_job(tmp_path / "jobs" / "j")
    assert bundle.contract is not None
    assert bundle.contract_path == path


@pytest.mark.parametrize("reference", ["contract.yaml", "./contract.yaml", "imu:1.0.0"])
def test_the_contract_beside_the_job(tmp_path: Path, reference: str) -> None:
    write(tmp_path / "contract.yaml", CONTRACT)
    write(tmp_path / "job.yaml", reading(reference))
    assert load_job(tmp_path).contract_path == tmp_path / "contract.yaml"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("imu:9.0.0", "there is no data contract 'imu:9.0.0'"),
        ("a/b.yaml", "there is no data contract 'a/b.yaml'"),
        ("../secret.yaml", "leads out of its folder"),
        ("/etc/passwd", "absolute path"),
        ("~/c.yaml", "absolute path"),
        ("C:\\c.yaml", "absolute path"),
        ("link.yaml", "leads out of"),
    ],
)
def test_contracts_that_are_not_there_or_lead_out(tmp_path: Path, reference: str, expected: str) -> None:
    outside = write(tmp_path / "secret.yaml", CONTRACT)
    folder = tmp_path / "repo" / "job"
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    write(folder / "job.yaml", reading(reference))
    (folder / "link.yaml").symlink_to(outside)
    shown = refused(folder)
    assert expected in shown
    line = (folder / "job.yaml").read_text().splitlines().index(f"    reference: {reference}") + 1
    assert f"job.yaml:{line}:5: error: model_config.input_schema.reference" in shown


def test_the_search_stops_at_the_repository(tmp_path: Path) -> None:
    write(tmp_path / "contracts" / "imu" / "1.0.0" / "data_contract.yaml", CONTRACT)
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    write(tmp_path / "repo" / "job.yaml", reading("imu:1.0.0"))
    assert "looked for contracts/imu/1.0.0/data_contract.yaml and DATA_CONTRACTS" in refused(tmp_path / "repo")


def test_folders_without_a_job(tmp_path: Path) -> None:
    assert "there is no job.yaml in this folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.yaml")


def test_problems_have_the_position_of_the_nearest_ancestor(tmp_path: Path) -> None:
    write(tmp_path / "job.yaml", long_job())
    bundle = load_job(tmp_path)
    problem = bundle.problem("job", ("training_config", "global_training", "nothing"), "warning", "m")
    assert (problem.line > 1, problem.path) == (True, "training_config.global_training.nothing")
    assert bundle.problem("selector", ("a",), "error", "m").file == str(tmp_path)


def test_a_job_written_in_python(tmp_path: Path) -> None:
    assert bundle_from_documents({"job": long_job()}, tmp_path).job.job_id == "fl-test"
    with pytest.raises(SpecError, match="did you mean 'LSTM'"):
        bundle_from_documents({"job": changed(long_job(), "model_config.architecture", "LSTN")}, tmp_path)


def test_jobs_are_found_by_path_or_example_name(tmp_path: Path) -> None:
    assert resolve_job(str(tmp_path)) == tmp_path
    for name in example_names():
        assert load_job(resolve_job(name)).warnings == ()
    with pytest.raises(SpecError, match="did you mean 'aircraft_accel_v1'"):
        resolve_job("aircraft_acel_v1")
