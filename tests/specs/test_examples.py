"""The packaged examples: valid, consistent, and honest about their data."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from fedloom.flows.support import not_built
from fedloom.specs.bundle import EXAMPLES, JobBundle, example_names, load_job
from fedloom.specs.contract import signal_catalog
from fedloom.specs.criteria import needed_columns
from fedloom.specs.documents import load_document
from fedloom.specs.locations import parse_location

ALL = ("aircraft_accel_v1", "predictive_maintenance", "sensor_drift_autoencoder")
HELD_OUT = ("s09-", "s10-")
SPECS = EXAMPLES.parent
PACKAGED = sorted([*SPECS.glob("*/*/*.yaml"), *SPECS.glob("registry/*.yaml")])


@pytest.fixture(params=ALL)
def bundle(request: pytest.FixtureRequest) -> JobBundle:
    return load_job(EXAMPLES / request.param)


def test_all_are_there() -> None:
    assert example_names() == ALL


def test_no_findings(bundle: JobBundle) -> None:
    assert bundle.warnings == ()


def test_the_holdout_is_in_no_client(bundle: JobBundle) -> None:
    assert bundle.fleet is not None
    assert len(bundle.fleet) == 16
    assert not [client for client in bundle.fleet.clients if client.startswith(HELD_OUT)]
    for client, text in zip(bundle.fleet.clients, bundle.fleet.data, strict=True):
        location = parse_location(text)
        assert (location.kind, location.dataset) == ("dataset", "imu-watch")
        assert location.path in (f"{client}.parquet", f"{client}-clean.parquet")
    holdout = bundle.job.validation.holdout_dataset
    assert holdout is not None
    assert holdout.source == "dataset:imu-watch/holdout.parquet"


def test_rounds_are_possible(bundle: JobBundle) -> None:
    asked = bundle.job.orchestration
    assert bundle.fleet is not None
    assert (asked.aggregation.min_quorum or 1) <= asked.min_clients <= asked.max_clients <= len(bundle.fleet)


def test_signals_have_nominal_values(bundle: JobBundle) -> None:
    assert bundle.contract is not None
    catalog = signal_catalog(bundle.contract)
    assert len(catalog.names) == 6
    assert set(catalog.nominal) == set(catalog.names)
    assert catalog.label_column == bundle.job.model.output_schema.label_column


def test_nothing_unbuilt_is_asked_for(bundle: JobBundle) -> None:
    assert not_built(bundle) == []


def test_the_selector_reads_columns_that_the_fleet_has() -> None:
    bundle = load_job(EXAMPLES / "aircraft_accel_v1")
    assert bundle.selector is not None
    assert bundle.fleet is not None
    assert set(needed_columns(bundle.selector).values()) <= set(bundle.fleet.attributes)


def test_canaries_are_clients() -> None:
    bundle = load_job(EXAMPLES / "aircraft_accel_v1")
    assert bundle.rollout is not None
    assert bundle.fleet is not None
    assert {client for phase in bundle.rollout.phases for client in phase.specific_clients} <= set(bundle.fleet.clients)


@pytest.mark.parametrize("name", ALL)
def test_it_says_what_the_data_is(name: str) -> None:
    text = re.sub(r"\s*#\s*", " ", (EXAMPLES / name / "job.yaml").read_text()).lower()
    assert "real" in text
    assert "synthetic" in text


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: "/".join(path.parts[-2:]))
def test_schema_lines_lead_to_a_schema(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert match is not None
    assert (path.parent / match[1]).is_file()


def test_the_roster_is_in_order() -> None:
    with open(EXAMPLES / "aircraft_accel_v1" / "fleet.csv", newline="") as stream:
        ids = [row["client_id"] for row in csv.DictReader(stream)]
    assert ids == sorted(ids)


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: "/".join(path.parts[-2:]))
def test_an_editor_finds_no_fault(path: Path) -> None:
    name = "registry" if path.stem == "index" else path.stem
    schema = json.loads((SPECS / "schemas" / f"{name}.schema.json").read_text())
    errors = Draft202012Validator(schema).iter_errors(load_document(path).data)
    assert [error.message for error in errors] == []
