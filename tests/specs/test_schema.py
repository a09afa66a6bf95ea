"""JSON Schemas: generated, well-formed, and of one mind with the models about good specs."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fedloom.specs.bundle import EXAMPLES
from fedloom.specs.documents import load_document
from fedloom.specs.kinds import detect_kind
from fedloom.specs.schema import FOLDER, SCHEMAS, json_schema, schema_text
from tests.specs.jobs import SHORT_A, SHORT_B, changed, long_job, short_job


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_files_are_up_to_date(name: str) -> None:
    path = FOLDER / f"{name}.schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(name), "run: python -m fedloom.specs.schema"


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_well_formed_and_documented(name: str) -> None:
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$id"]
    assert schema["title"]
    for key, inner in schema["properties"].items():
        target = schema["$defs"][inner["$ref"].rsplit("/", 1)[-1]] if "$ref" in inner else inner
        assert target.get("description"), key


def errors(data: Any, name: str = "job") -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema(name)).iter_errors(data)]


LOCAL = changed(
    changed(
        changed(long_job(), "training_config.local_training", {"local_epochs": 1, "batch_size": 2}),
        "training_config.local_epochs",
        ...,
    ),
    "training_config.batch_size",
    ...,
)


@pytest.mark.parametrize(
    "data",
    [
        long_job(),
        short_job(SHORT_A),
        short_job(SHORT_B),
        LOCAL,
        changed(long_job(), "orchestration_config.schedule", "weekly"),
        changed(
            long_job(), "privacy_config", {"differential_privacy": True, "epsilon": 1, "secure_aggregation": False}
        ),
        changed(long_job(), "validation_config.metrics", {"auc": 0.9}),
        changed(long_job(), "validation_config.metrics", ["auc"]),
        changed(long_job(), "compliance_config", {"audit_trail": {"enabled": True}}),
        changed(long_job(), "compliance_config", {"certification": {"level": "none"}}),
        changed(long_job(), "compliance_config", {"audit_trail": True, "export_control": "EAR"}),
        changed(long_job(), "related_documents", ["a.md"]),
        changed(long_job(), "model_config.input_schema", "c.yaml#g"),
        changed(long_job(), "job_metadata.job_id", "no-prefix"),
    ],
)
def test_every_form_of_a_job_validates(data: Any) -> None:
    assert errors(data) == []


@pytest.mark.parametrize(
    "data",
    [
        changed(long_job(), "training_config", ...),
        changed(long_job(), "trainig_config", {}),
        changed(short_job(), "batch_size", ...),
        changed(short_job(), "batch_size", 0),
        changed(long_job(), "model_config.architecture", "LSTN"),
        {},
    ],
)
def test_bad_jobs_do_not(data: Any) -> None:
    assert errors(data)


@pytest.mark.parametrize("path", sorted(EXAMPLES.parent.glob("*/*/*.yaml")), ids="{0.parent.name}/{0.name}".format)
def test_packaged_specs_validate(path: Any) -> None:
    document = load_document(path)
    assert errors(document.data, detect_kind(document)) == []
