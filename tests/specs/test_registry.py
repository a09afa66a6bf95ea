"""The registry: rows, and what does not agree with the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedloom.specs import registry as module
from fedloom.specs.registry import Registry, check_registry, entries, load_registry, locate

PACKAGED = Path(module.__file__).parent / "registry" / "index.yaml"


def job(job_id: str = "fl-a", status: str = "active", **more: Any) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "name": "A",
        "version": "1.0.0",
        "status": status,
        "owner": "us",
        "created_at": "2024-01-02T00:00:00Z",
        "spec_location": "jobs/a.yaml",
    } | more


def findings(tmp_path: Path, **sections: Any) -> list[tuple[str, str, str]]:
    folder = tmp_path / "registry"
    folder.mkdir()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a.yaml").write_text("job_metadata: {job_id: fl-a}\n")
    (tmp_path / "jobs" / "short.yaml").write_text("job_id: b\n")
    (tmp_path / "jobs" / "broken.yaml").write_text("a: [\n")
    (tmp_path / "jobs" / "list.yaml").write_text("- 1\n")
    registry = Registry.model_validate({"version": "1.0.0"} | sections)
    return [
        (".".join(map(str, path)), severity, message)
        for path, severity, message, _ in check_registry(registry, folder / "index.yaml")
    ]


def test_the_module_is_found_beside_the_folder_of_its_name() -> None:
    assert module.__file__ is not None
    assert module.__file__.endswith("registry.py")


def test_the_packaged_registry_is_right() -> None:
    registry = load_registry(PACKAGED)
    assert check_registry(registry, PACKAGED) == []
    rows = entries(registry)
    assert [(row.state, row.job_id) for row in rows] == [
        ("active", "fl-aircraft-accel-v1"),
        ("draft", "fl-pm-engine-bearing-v1"),
        ("draft", "fl-ad-sensor-drift-v1"),
    ]


@pytest.mark.parametrize(
    "entry",
    [job(), job(status="approved"), job("fl-b", spec_location="jobs/short.yaml"), job(spec_location="../jobs/a.yaml")],
)
def test_agrees(tmp_path: Path, entry: dict[str, Any]) -> None:
    assert findings(tmp_path, active_jobs=[entry]) == []


@pytest.mark.parametrize(
    ("sections", "path", "severity", "message"),
    [
        ({"draft_jobs": [job()]}, "draft_jobs.0.status", "error", "status is 'active'"),
        ({"active_jobs": [job(), job()]}, "active_jobs.1.job_id", "error", "already listed under active_jobs"),
        ({"active_jobs": [job(spec_location="no.yaml")]}, "active_jobs.0.spec_location", "error", "there is no file"),
        ({"active_jobs": [job(spec_location="../../x")]}, "active_jobs.0.spec_location", "error", "leads out"),
        ({"active_jobs": [job(spec_location="/etc/passwd")]}, "active_jobs.0.spec_location", "error", "leads out"),
        ({"active_jobs": [job("fl-z")]}, "active_jobs.0.job_id", "error", "is the job 'fl-a', not 'fl-z'"),
        (
            {"active_jobs": [job(spec_location="jobs/broken.yaml")]},
            "active_jobs.0.spec_location", "error", "cannot be read as YAML",
        ),
        ({"active_jobs": [job(spec_location="jobs/list.yaml")]}, "active_jobs.0.spec_location", "error", "no job file"),
        (
            {"completed_jobs": [job(status="completed", completed_at="2024-01-01T00:00:00Z")]},
            "completed_jobs.0.completed_at", "error", "before created_at",
        ),
        ({"completed_jobs": [job(status="completed")]}, "completed_jobs.0", "warning", "should say when"),
        (
            {"failed_jobs": [job(status="failed", failed_at="2024-01-03T00:00:00Z", spec_location="gone.yaml")]},
            "failed_jobs.0.spec_location", "warning", "there is no file",
        ),
        (
            {"templates": [{"template_id": "t", "name": "T", "location": "no.yaml"}]},
            "templates.0.location", "error", "there is no file",
        ),
        (
            {"schemas": [{"schema_id": "s", "version": "1.0.0", "location": "jobs/a.yaml"}] * 2},
            "schemas.1.schema_id", "error", "listed twice",
        ),
        (
            {"registry_metadata": {"created_at": "2024-02-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z"}},
            "registry_metadata.updated_at", "error", "before created_at",
        ),
        (
            {"change_history": [{"version": "1.0.0", "date": f"2024-0{month}-01"} for month in (1, 3, 2)]},
            "change_history", "warning", "order",
        ),
    ],
)  # fmt: skip
def test_disagrees(tmp_path: Path, sections: dict[str, Any], path: str, severity: str, message: str) -> None:
    found = findings(tmp_path, **sections)
    assert any(f[:2] == (path, severity) and message in f[2] for f in found), found
    assert len(found) == 1


def test_a_link_out_of_the_registry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "top" / "registry").mkdir(parents=True)
    (tmp_path / "out.yaml").write_text("job_id: x\n")
    (tmp_path / "top" / "link.yaml").symlink_to(tmp_path / "out.yaml")
    with pytest.raises(ValueError, match="leads out"):
        locate("../link.yaml", tmp_path / "top" / "registry" / "index.yaml")
