"""Pseudonyms that a job asks for: nothing to do, or refused."""

from pathlib import Path
from typing import Any

import pytest

from fedloom.flows.compile import compile_plan
from fedloom.flows.show import notes
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from tests.conftest import write_job


def job(folder: Path, **fields: Any) -> Path:
    private = {
        "differential_privacy": {"enabled": False},
        "secure_aggregation": {"enabled": False},
        "pseudonymisation": fields,
    }
    return write_job(folder, differential_privacy=None, secure_aggregation=None, privacy_config=private)


def test_fields_that_no_run_reads_need_no_pseudonyms(tmp_path: Path) -> None:
    bundle = load_job(job(tmp_path, aircraft_id="sha256_hash", flight_id="sha256_hash", no_pii=True))
    assert compile_plan(bundle)
    found = [note for note in notes(bundle) if "aircraft_id, flight_id" in note or "no_pii" in note]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("field", "severity", "word"),
    [
        ("client_id", "not built", "write pseudonyms into the fleet"),
        ("data_samples", "not built", "write pseudonyms into the fleet"),
        ("a", "error", "the model is trained on a"),
        ("label", "error", "the model is trained on label"),
    ],
)
def test_what_a_run_reads_is_refused_by_name(tmp_path: Path, field: str, severity: str, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        compile_plan(load_job(job(tmp_path, **{field: "sha256_hash"})))
    (problem,) = caught.value.problems
    assert (problem.severity, problem.path) == (severity, f"privacy_config.pseudonymisation.{field}")
    assert word in problem.message
