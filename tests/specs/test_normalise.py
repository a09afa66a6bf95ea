"""Short forms: the same job, however it is written, and positions that lead back to the user's lines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.specs.documents import Document, parse_document
from fedloom.specs.job import Job
from fedloom.specs.kinds import normal_form, read_spec
from fedloom.specs.normalise import canonical_job_id, normalise_job
from fedloom.specs.problems import SpecError
from fedloom.specs.short_forms import FLAT, SECTIONS
from tests.specs.jobs import SHORT_A, SHORT_B, changed, long_job, short_job


def test_the_canonical_form_is_its_own_normal_form() -> None:
    normal = normalise_job(long_job())
    assert normal.tree == long_job()
    assert not normal.conflicts
    assert normalise_job(normal.tree).tree == normal.tree


def test_short_job_a() -> None:
    _, job, _ = read_spec(parse_document(SHORT_A, "a"))
    assert isinstance(job, Job)
    assert (job.job_id, job.metadata.owner) == ("fl-pm-engine-bearing-v1", "unassigned")
    assert job.model.input_schema.reference == "01-ARCHITECTURE/DATA_CONTRACTS/TELEMETRY_SCHEMA.yaml"
    assert job.model.input_schema.signal_group == "engine_vibration"
    assert job.orchestration.schedule.type == "weekly"
    privacy = job.privacy.differential_privacy
    assert (privacy.enabled, privacy.epsilon, privacy.delta) == (True, 1.0, 1e-5)
    assert not job.privacy.secure_aggregation.enabled
    assert job.metadata.created_at is None


def test_short_job_b() -> None:
    _, job, _ = read_spec(parse_document(SHORT_B, "b"))
    assert isinstance(job, Job)
    assert job.model.output_schema.type == "reconstruction_error"
    assert job.training.hyperparameters.mu == 0.01
    assert job.privacy.secure_aggregation.enabled
    assert (job.orchestration.min_clients, job.orchestration.max_clients) == (15, 75)


@pytest.mark.parametrize(
    ("path", "short", "place", "full"),
    [
        ("orchestration_config.schedule", "weekly", "orchestration_config.schedule", {"type": "weekly"}),
        (
            "orchestration_config.schedule",
            "0 2 * * 0",
            "orchestration_config.schedule",
            {"type": "cron", "cron_expression": "0 2 * * 0"},
        ),
        (
            "orchestration_config.client_selection",
            "random",
            "orchestration_config.client_selection",
            {"algorithm": "random"},
        ),
        ("privacy_config.differential_privacy", True, "privacy_config.differential_privacy", {"enabled": True}),
        ("model_config.input_schema", "c:1.0.0", "model_config.input_schema", {"reference": "c:1.0.0"}),
        (
            "model_config.input_schema",
            {"reference": "c.yaml#g"},
            "model_config.input_schema",
            {"reference": "c.yaml", "signal_group": "g"},
        ),
        ("model_config.output_schema", "regression", "model_config.output_schema", {"type": "regression"}),
        ("validation_config.holdout_dataset", "h.csv", "validation_config.holdout_dataset", {"source": "h.csv"}),
        ("validation_config.metrics", ["auc"], "validation_config.metrics", [{"name": "auc"}]),
        (
            "validation_config.metrics",
            {"auc": 0.9, "f1": None, "r": {"target": 1}},
            "validation_config.metrics",
            [{"name": "auc", "target": 0.9}, {"name": "f1"}, {"name": "r", "target": 1}],
        ),
        ("training_config.num_rounds", 7, "training_config.global_training", {"num_rounds": 7}),
        (
            "compliance_config",
            {"audit_trail": {"enabled": True, "immutable_logs": True}},
            "compliance_config",
            {"audit_trail": True, "immutable_logs": True},
        ),
        (
            "compliance_config",
            {"certification": {"level": "none", "scope": "x"}},
            "compliance_config",
            {"certification_level": "none", "certification_scope": "x"},
        ),
        (
            "compliance_config",
            {"export_control": {"classification": "EAR"}},
            "compliance_config",
            {"export_control": "EAR"},
        ),
        ("related_docs", [{"path": "a"}, "b"], "related_documents", [{"path": "a"}, {"path": "b"}]),
        ("monitoring", {"track_convergence": True}, "monitoring_config", {"track_convergence": True}),
        (
            "deployment_config",
            {"canary_phase": {"canary_clients": ["c"]}},
            "deployment_config",
            {"canary_phase": {}, "canary_clients": ["c"]},
        ),
    ],
)
def test_short_values(path: str, short: Any, place: str, full: Any) -> None:
    job = long_job()
    for key in ("validation_config", "global_training"):
        (job if key in job else job["training_config"]).pop(key)
    node: Any = normalise_job(changed(job, path, short)).tree
    for step in place.split("."):
        node = node[step]
    assert node == full


def test_local_training_and_client_counts_may_stand_one_level_lower() -> None:
    job = long_job()
    training, orchestration = job["training_config"], job["orchestration_config"]
    training["local_training"] = {key: training.pop(key) for key in ("local_epochs", "batch_size")}
    for key in ("min_clients", "max_clients"):
        orchestration["client_selection"][key] = orchestration.pop(key)
    assert normalise_job(job).tree == long_job()


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("epsilon: 99\n", "epsilon", 20),
        ("privacy_config:\n  epsilon: 2\n", "epsilon", 17),
        ("training_config:\n  batch_size: 3\n", "batch_size", 11),
        ("metrics:\n  auc: high\n", "metrics.auc", 21),
        ("num_rounds: 0\n", "num_rounds", 20),
    ],
)
def test_errors_lead_to_the_lines_of_the_user(text: str, path: str, line: int) -> None:
    source = SHORT_A if text.split(":")[0] != "epsilon" else SHORT_A.replace("epsilon: 1.0\n", "# none\n")
    with pytest.raises(SpecError) as error:
        read_spec(parse_document(source + text, "f"))
    assert (path, line) in [(problem.path, problem.line) for problem in error.value.problems]


def test_what_a_flat_job_says_within_a_section_of_its_own_has_its_own_line() -> None:
    text = SHORT_A.replace("output_schema: ", "output_schema:\n  labels: [1, 1]\n  type: ")
    document, _ = normal_form(parse_document(text, "f"))
    problem = document.problem(("model_config", "output_schema", "labels"), "names a label twice")
    assert problem.path == "output_schema.labels"
    assert text.splitlines()[problem.line - 1] == "  labels: [1, 1]"


def test_a_value_given_twice_is_an_error_with_both_places() -> None:
    document, conflicts = normal_form(parse_document(SHORT_A + "privacy_config:\n  epsilon: 2\n", "f"))
    assert document.data["privacy_config"]["differential_privacy"]["enabled"] is True
    (conflict,) = conflicts
    assert (conflict.path, conflict.line) == ("epsilon", 17)
    assert "also as privacy_config.epsilon at 21:3" in conflict.message


@pytest.mark.parametrize("key", [key for key in FLAT if key not in ("related_docs", "monitoring")])
def test_every_flat_key_reaches_its_place(key: str) -> None:
    marker = object()
    node: Any = normalise_job({"job_id": "fl-x", key: marker}).tree
    for step in FLAT[key]:
        node = node[step]
    assert node is marker


@pytest.mark.parametrize(("given_id", "full"), [("a-1", "fl-a-1"), ("fl-a-1", "fl-a-1"), ("fl", "fl-fl")])
def test_job_ids_have_one_canonical_form(given_id: str, full: str) -> None:
    assert canonical_job_id(given_id) == full
    assert canonical_job_id(full) == full


def test_normalising_does_not_change_its_input() -> None:
    data = short_job()
    before = repr(data)
    normalise_job(data)
    assert repr(data) == before


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["enabled", "type", "level", "min_clients", "epsilon", "name", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*FLAT, *SECTIONS, "unknown"]), VALUES, max_size=6))
def test_any_data_is_normalised_and_then_read_or_refused(data: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as error:
        read_spec(Document("f", data), "job")
    assert error.value.problems
