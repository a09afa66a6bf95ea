"""New job folders: they validate, they are whole, and bad names are refused with a hint."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedloom.specs import scaffold
from fedloom.specs.bundle import load_job
from fedloom.specs.canonical import sha256
from fedloom.specs.problems import SpecError
from fedloom.specs.scaffold import TEMPLATES, init_job

SCHEMA_LINE = re.compile(r"# yaml-language-server: \$schema=(\S+)")


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_init_writes_is_valid(tmp_path: Path, template: str) -> None:
    written = init_job("bearing-wear", template, tmp_path)
    folder = tmp_path / "bearing-wear"
    assert {path.name for path in written} >= {"job.yaml", "contract.yaml", "fleet.yaml"}
    assert all(path.parent == folder and path.is_file() for path in written)
    bundle = load_job(folder)
    assert bundle.job.job_id == "fl-bearing-wear"
    assert bundle.warnings == ()
    assert bundle.job.validation.evaluation_mode is (template == "eval")
    assert (bundle.job.aggregation is not None) is (template == "aggregate")
    if bundle.selector is not None:
        assert bundle.selector.selector_metadata.selector_id == "selector-bearing-wear"
    if template == "train":
        assert bundle.rollout is not None
        assert bundle.rollout.rollout_metadata.job_ref == "fl-bearing-wear"
        assert bundle.schedule is not None
        assert bundle.schedule.schedule_metadata.job_ref == "fl-bearing-wear"


@pytest.mark.parametrize("template", TEMPLATES)
def test_editors_find_the_schema_offline(tmp_path: Path, template: str) -> None:
    for path in init_job("x1", template, tmp_path):
        first = path.read_text().splitlines()[0]
        match = SCHEMA_LINE.fullmatch(first)
        assert match is not None, first
        schema = json.loads((path.parent / match[1]).read_text())
        assert schema["type"] == "object" or "anyOf" in schema or "$ref" in schema


def test_names_and_dates_are_the_jobs_own(tmp_path: Path) -> None:
    today = datetime.now(UTC).date().isoformat()
    texts = [path.read_text() for path in init_job("fl-pumps", "train", tmp_path)]
    assert not any("my-job" in text or "fl-fl-" in text for text in texts)
    assert any("fl-pumps" in text for text in texts)
    assert all(today in text for text in texts)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Bearing Wear", "'bearing-wear'"),
        ("bearing_wear", "'bearing-wear'"),
        ("Überwachung", "'uberwachung'"),
        ("../up", "'up'"),
        ("a/b", "'a-b'"),
        ("-x", "'x'"),
        ("x--y", "'x-y'"),
        ("x" * 41, f"'{'x' * 40}'"),
        ("日本", "at most 40"),
        ("", "at most 40"),
        ("fl", "at most 40"),
        ("x\n", "'x'"),
    ],
)
def test_bad_names(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        init_job(name, "train", tmp_path)
    assert hint in (caught.value.problems[0].hint or "")
    assert list(tmp_path.iterdir()) == []


def test_unknown_template(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'train'"):
        init_job("x", "trian", tmp_path)


def test_existing_places_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("folder", "file", "dangling"):
        with pytest.raises(SpecError, match="exists already"):
            init_job(name, "train", tmp_path)
    assert list((tmp_path / "folder").iterdir()) == []
    assert (tmp_path / "file").read_text() == "kept"


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaffold, "SCHEMA_FOLDER", "x" * 300)
    with pytest.raises(SpecError, match="cannot be written: file name too long"):
        init_job("x", "train", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="cannot be written"):
        init_job("x", "train", tmp_path / "file")


@pytest.mark.parametrize("template", ["eval", "aggregate"])
def test_what_trains_nothing_comes_with_its_model_and_updates(tmp_path: Path, template: str) -> None:
    init_job("x", template, tmp_path)
    model = (tmp_path / "x" / "model.safetensors").read_bytes()
    if template == "eval":
        return
    updates = tmp_path / "x" / "updates"
    index = json.loads((updates / "index.json").read_text())
    assert index["base_model"] == sha256(model)
    fleet = load_job(tmp_path / "x").fleet
    assert fleet is not None
    assert [entry["client"] for entry in index["updates"]] == list(fleet.clients)
    for entry in index["updates"]:
        assert sha256((updates / entry["file"]).read_bytes()) == entry["sha256"]
