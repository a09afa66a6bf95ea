"""Validation of files, folders and trees."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fedloom.specs.bundle import EXAMPLES
from fedloom.specs.validate import discover, validate_paths
from tests.specs.jobs import SHORT_A, changed, long_job


def tree(root: Path) -> None:
    (root / "jobs" / "a").mkdir(parents=True)
    (root / "jobs" / "a" / "job.yaml").write_text(yaml.safe_dump(long_job()))
    (root / "jobs" / "a" / "notes.yaml").write_text("x: 1\n")
    (root / "k8s.yaml").write_text("apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Pod\n")
    (root / "broken.yaml").write_text("# Title\njob_metadata:\n```yaml\n")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "job.yaml").write_text("job_id: a\n")
    (root / "registry.yaml").write_text(
        "version: 1.0.0\nactive_jobs:\n  - {job_id: fl-test, name: t, version: 1.0.0, status: active, owner: o,\n"
        "     created_at: '2026-01-01T00:00:00Z', spec_location: jobs/none.yaml}\n"
    )


def test_discovery_finds_specs_and_says_what_it_skips(tmp_path: Path) -> None:
    tree(tmp_path)
    found = discover(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == ["broken.yaml", "registry.yaml", "jobs/a"]
    assert [(path.name, reason) for path, reason in found.skipped] == [
        ("k8s.yaml", "a Kubernetes manifest"),
        ("notes.yaml", "no spec"),
    ]


def test_every_problem_is_reported_and_none_raised(tmp_path: Path) -> None:
    tree(tmp_path)
    result = validate_paths([*discover(tmp_path).paths, tmp_path / "k8s.yaml", tmp_path / "none.yaml"])
    assert not result.valid
    messages = " | ".join(problem.message for problem in result.problems)
    for part in ("is not YAML", "there is no file 'jobs/none.yaml'", "a Kubernetes manifest", "no such file"):
        assert part in messages
    assert [bundle.job.job_id for bundle in result.bundles] == ["fl-test"]


def test_the_normal_form_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(SHORT_A.replace('input_schema: "01', '# "01'))
    result = validate_paths([path])
    assert result.valid
    assert result.files == (str(path),)
    assert result.normal_forms[str(path)]["orchestration_config"]["schedule"] == {"type": "weekly"}


def test_a_given_kind_is_enforced(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(changed(long_job(), "training_config", ...)))
    shown = [problem.path for problem in validate_paths([path], "selector").problems]
    assert "selector_metadata" in shown
    with pytest.raises(KeyError):
        validate_paths([path], "nonsense")


def test_all_packaged_specs_are_valid() -> None:
    found = discover(EXAMPLES.parent)
    result = validate_paths(found.paths)
    assert result.problems == ()
    assert not found.skipped
    assert len(result.bundles) >= 6
