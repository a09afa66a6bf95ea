"""The commands as a user calls them: what they print, where, and with which exit code."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fedloom.deploy.argo.render import FILES

Example = Callable[[str], Path]


def fedloom(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedloom", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_rendered_checked_linted_and_drifted(copy_example: Example, tmp_path: Path) -> None:
    job, out = copy_example("aircraft_accel_v1"), tmp_path / "out"
    done = fedloom("render", "argo", job, "-o", out)
    assert done.returncode == 0
    assert [Path(line).name for line in done.stdout.splitlines()] == list(FILES)
    assert "note: fl-aircraft-accel-v1: the check 'Clean data'" in done.stderr
    assert fedloom("render", "argo", job, "--check", out).stdout == "no drift: 1 job\n"
    assert fedloom("lint", "argo", out).stdout == "clean: 8 files\n"

    text = (job / "job.yaml").read_text()
    (job / "job.yaml").write_text(text.replace("batch_size: 128", "batch_size: 64"))
    drifted = fedloom("render", "argo", job, "--check", out)
    assert drifted.returncode == 1
    assert "-      batch_size: 128" in drifted.stdout
    assert "+      batch_size: 64" in drifted.stdout
    assert "is not what the specs say" in drifted.stderr


def test_all_documents_on_standard_output(tmp_path: Path) -> None:
    done = fedloom(
        "render", "argo", "sensor_drift_autoencoder", "predictive_maintenance", "--stdout", "--image", "a/b:1"
    )
    documents = list(yaml.safe_load_all(done.stdout))
    assert len(documents) == 14
    images = {
        template["container"]["image"]
        for document in documents
        if document["kind"] == "WorkflowTemplate"
        for template in document["spec"]["templates"]
        if "container" in template
    }
    assert images == {"a/b:1"}
    (tmp_path / "all.yaml").write_text(done.stdout)
    assert json.loads(fedloom("lint", "argo", tmp_path / "all.yaml", "--format", "json").stdout) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "say where to: -o FOLDER, --stdout or --check FOLDER"),
        (["--stdout", "--check", "x"], 2, "say where to"),
        (["--stdout", "--image", "A b"], 2, "no image reference"),
        (["--stdout", "--namespace", "-x-"], 2, "no Kubernetes name"),
        (["--stdout", "--values", "none.yaml"], 2, "there is no such file"),
        (["--stdout", "--argo-version", "3"], 2, "'3' is not one of"),
        (["-o", "file/inside"], 1, "file"),
        (["--check", "nowhere"], 1, "is not what the specs say"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, words: list[str], code: int, message: str) -> None:
    (tmp_path / "file").write_text("")
    done = fedloom("render", "argo", "predictive_maintenance", *words, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lint_error_is_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, metadata: {name: A}, spec: {}}"
    )
    done = fedloom("lint", "argo", tmp_path / "w.yaml", "--format", "github")
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=")


def test_names_that_are_too_long_and_words_of_all_kinds(copy_example: Example, tmp_path: Path) -> None:
    job = copy_example("aircraft_accel_v1")
    (job / "schedule.yaml").unlink()
    (job / "rollout.yaml").unlink()
    long = "fl-" + "a-very-long-name-" * 4 + "v1"
    text = (job / "job.yaml").read_text().replace("fl-aircraft-accel-v1", long)
    (job / "job.yaml").write_text(text.replace('"Accelerometer drift detection"', "\"Drift 😀: 'ä' {{x}}\""))
    out = tmp_path / "out"
    assert fedloom("render", "argo", job, "-o", out).returncode == 0
    (folder,) = out.iterdir()
    assert len(folder.name) <= 52
    assert folder.name.startswith("fl-a-very-long-name-")
    assert fedloom("lint", "argo", out).returncode == 0
    template = yaml.safe_load((folder / "workflow-template.yaml").read_text())
    assert template["metadata"]["annotations"]["workflows.argoproj.io/title"] == "Drift 😀: 'ä' {{x}}"
