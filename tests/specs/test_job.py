"""The job model: what it takes, and what its errors say."""

from __future__ import annotations

from typing import Any

import pytest

from fedloom.specs.documents import Document, parse_document
from fedloom.specs.job import Job
from fedloom.specs.kinds import KINDS, detect_kind, is_kubernetes, model_of, read_spec
from fedloom.specs.problems import SpecError
from tests.specs.jobs import SHORT_A, changed, long_job


def problems_of(data: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as error:
        read_spec(Document("job.yaml", data), "job")
    return str(error.value)


def test_the_canonical_form_is_read() -> None:
    _, job, _ = read_spec(Document("job.yaml", long_job()), "job")
    assert isinstance(job, Job)
    assert job.job_id == "fl-test"
    assert job.training.hyperparameters.class_weights == (1.0, 3.0)
    assert job.training.seed == 0
    assert job.orchestration.shard_size == 16
    assert job.validation.metrics[0].target == 0.9


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model_config.architecture", "LSTN", "did you mean 'LSTM'?"),
        ("training_config.hyperparameters.optimizer", "adam", "did you mean 'Adam'?"),
        ("training_config.local_epochs", "5", "write it without quotes: 5"),
        ("training_config.local_epochs", True, "must be a whole number, not true"),
        ("training_config.local_epochs", 5.5, "must be a whole number, not 5.5"),
        ("training_config.local_epochs", 101, "101 is out of range: it must be at most 100"),
        ("training_config.local_epochs", None, "is empty, it must be a whole number"),
        ("training_config.hyperparameters.learning_rate", -0.1, "it must be at least 1e-05"),
        ("training_config.hyperparameters.learning_rate", True, "must be a number, not true"),
        ("training_config.hyperparameters.learning_rate", float("nan"), "nan is not a finite number"),
        ("training_config.seed", -1, "at least 0"),
        ("model_config.model_hyperparameters.dropout", 1.0, "must be below 1"),
        ("model_config.model_hyperparameters.extra", float("inf"), "inf is not a finite number"),
        ("model_config.version", 1.0, 'put it in quotes: "1.0"'),
        ("model_config.version", "1.0", "a version of three numbers"),
        ("training_config.hyperparameters.learning_rat", 0.1, "did you mean 'learning_rate'?"),
        ("training_config.learning_rate", 0.1, "it belongs in training_config.hyperparameters"),
        ("model_config.local_epochs", 1, "it belongs in training_config"),
        ("trainig_config", {}, "did you mean 'training_config'?"),
        ("training_config", 5, "must be a mapping (key: value), not 5"),
        ("training_config", ..., "training_config: is missing"),
        ("orchestration_config.min_clients", 9, "min_clients (9) is above max_clients (4)"),
        ("privacy_config.secure_aggregation.protocol", "paillier", "'threshold_paillier'?"),
        ("privacy_config.differential_privacy.enabled", "yes", "write true"),
        ("privacy_config.differential_privacy.epsilon", 11, "at most 10"),
        ("validation_config.thresholds", {"auc": {"mim": 1}}, "did you mean 'min'?"),
        ("validation_config.thresholds", {"auc": {"min": 2, "max": 1}}, "min (2) is above max (1)"),
        ("validation_config.thresholds", {"auc": "x"}, "must be a number"),
        ("job_metadata.contact", "nobody", "form"),
        ("job_metadata.job_id", "Fl Test", "an id of lower-case letters"),
        ("job_metadata.created_at", "2026-13-01T00:00:00Z", "no date and time"),
        ("job_metadata.name", " ", "blank"),
        ("tags", "imu", "must be a list, not 'imu'"),
    ],
)
def test_errors_say_what_and_what_to_do(path: str, value: Any, expected: str) -> None:
    shown = problems_of(changed(long_job(), path, value))
    assert expected in shown
    assert "pydantic" not in shown
    assert "Input should" not in shown


def test_all_errors_at_once_with_their_lines() -> None:
    text = (
        SHORT_A.replace('"LSTM"', '"LSTN"')
        .replace("local_epochs: 5", "local_epochs: x")
        .replace("  learning_rate", "  learning_rat")
    )
    with pytest.raises(SpecError) as error:
        read_spec(parse_document(text, "job.yaml"))
    found = [(problem.line, problem.column, problem.path) for problem in error.value.problems]
    assert found == [
        (2, 1, "architecture"),
        (7, 1, "hyperparameters.learning_rate"),
        (8, 3, "hyperparameters.learning_rat"),
        (10, 1, "local_epochs"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_model_with_described_fields(kind: str) -> None:
    for name, field in model_of(kind).model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("job_id: a", "job"),
        ("job_metadata: {}", "job"),
        ("training_config: {}", "job"),
        ("selector_metadata: {}", "selector"),
        ("rollout_metadata: {}", "rollout"),
        ("schedule_metadata: {}", "schedule"),
        ("contract_metadata: {}", "contract"),
        ("clients: []", "fleet"),
        ("active_jobs: []", "registry"),
        ("dp_metadata: {}", "dp_policy"),
        ("pii_metadata: {}", "pii_map"),
        ("constraints_metadata: {}", "constraints"),
        ("sla_metadata: {}", "slas"),
    ],
)
def test_kinds_are_told_by_content(text: str, kind: str) -> None:
    assert detect_kind(parse_document(text, "f")) == kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [("job_metdata: {}", "did you mean 'job_metadata'?"), ("x: 1", "needs the key"), ("[1]", "list")],
)
def test_what_is_no_spec_is_refused(text: str, expected: str) -> None:
    with pytest.raises(SpecError) as error:
        detect_kind(parse_document(text, "f"))
    assert expected in str(error.value)


def test_kubernetes_manifests_are_recognised() -> None:
    assert is_kubernetes("# c\napiVersion: v1\nkind: Pod\nmetadata: {}\n")
    assert is_kubernetes("kind: Pod\napiVersion: v1\n")
    assert not is_kubernetes("job_id: a\n# apiVersion: v1\n# kind: Pod\n")
