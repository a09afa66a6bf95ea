"""fedloom data baseline."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedloom.cli import main
from fedloom.tasks.drift import read_baseline
from tests.conftest import write_job

WATCHED = {"holdout_dataset": {"source": "holdout.csv"}, "drift_detection": {"enabled": True, "alert_threshold": 0.2}}


def test_a_baseline_is_made_for_a_job_that_lacks_just_this(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", holdout=None, validation_config=WATCHED)
    done = CliRunner().invoke(main, ["data", "baseline", str(folder), "-o", str(folder / "baseline.json")])
    assert done.exit_code == 0, done.output
    data = json.loads((folder / "baseline.json").read_bytes())
    assert (data["sources"], data["samples"], sorted(data["signals"])) == (["holdout.csv"], 320, ["a", "b"])
    assert len(read_baseline("baseline.json", folder).signals["a"].shares) == 10


def test_a_baseline_is_made_of_other_data(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", holdout=None)
    made = tmp_path / "b.json"
    sources = ["data/c1.csv", "data/c2.csv"]
    asked = [part for source in sources for part in ("--source", source)]
    done = CliRunner().invoke(main, ["data", "baseline", str(folder), "-o", str(made), *asked])
    assert done.exit_code == 0, done.output
    data = json.loads(made.read_bytes())
    assert (data["sources"], data["samples"]) == (sources, 640)


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ([], 2, "the job has no holdout; name the data with --source"),
        (["--source", "none.csv"], 1, "none.csv: cannot open 'none.csv': there is no such file"),
        (["--source", "../x.csv"], 1, "leads out of its folder"),
    ],
)
def test_data_that_cannot_be_read_are_named(tmp_path: Path, source: list[str], code: int, message: str) -> None:
    folder = write_job(tmp_path / "job", holdout=None)
    done = CliRunner().invoke(main, ["data", "baseline", str(folder), "-o", str(tmp_path / "b.json"), *source])
    assert done.exit_code == code
    assert message in done.output
    assert not (tmp_path / "b.json").exists()
