"""Checks across files and of plausibility, each by a change to a job folder that has nothing wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedloom.specs.bundle import JobBundle, bundle_from_documents
from fedloom.specs.checks_time import cron_trouble
from fedloom.specs.problems import Problem, SpecError
from tests.specs.jobs import CONTRACT, changed, long_job

SELECTOR: dict[str, Any] = {
    "selector_metadata": {"selector_id": "selector-t", "name": "t", "version": "1.0.0"},
    "eligibility_criteria": {"min_data_samples": 5, "custom_criteria": {"side": "left"}},
    "selection_algorithm": {"algorithm": "random", "num_clients": 3, "min_clients": 2, "max_clients": 4},
    "fairness_policy": {"enabled": False},
    "blacklist": {"enabled": True, "client_ids": ["c1"]},
}
SCHEDULE: dict[str, Any] = {
    "schedule_metadata": {"schedule_id": "schedule-t", "name": "t", "version": "1.0.0", "job_ref": "test"},
    "schedule_type": "cron",
    "cron_schedule": {"expression": "0 2 * * 0"},
    "execution_constraints": {
        "allowed_windows": [{"days": ["Saturday"], "start_time": "22:00", "end_time": "06:00"}],
        "blackout_periods": [{"name": "b", "start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"}],
    },
}
FLEET: dict[str, Any] = {
    "fleet_metadata": {"fleet_id": "f", "version": "1.0.0"},
    "clients": [
        {"client_id": f"c{index}", "data": f"c{index}.parquet", "data_samples": 10, "side": "left"}
        for index in range(5)
    ],
}
GOOD = {"job": long_job(), "selector": SELECTOR, "schedule": SCHEDULE, "fleet": FLEET, "contract": CONTRACT}


def findings(documents: dict[str, Any]) -> tuple[Problem, ...]:
    try:
        bundle = bundle_from_documents(documents, Path())
    except SpecError as error:
        return error.problems
    assert isinstance(bundle, JobBundle)
    return bundle.warnings


def test_a_good_folder_has_no_findings() -> None:
    assert findings(GOOD) == ()


DP = {"enabled": True, "epsilon": 1.0, "delta": 1e-5, "noise_multiplier": 1.0, "max_grad_norm": 1.0}
HYPER = "training_config.hyperparameters"
MODEL = "model_config"


@pytest.mark.parametrize(
    ("kind", "path", "value", "severity", "expected"),
    [
        ("schedule", "schedule_metadata.job_ref", "fl-other", "error", "names the job 'fl-other'"),
        ("job", "orchestration_config.aggregation.min_quorum", 3, "error", "3 is above min_clients (2)"),
        ("job", "orchestration_config.client_selection.target_clients", 5, "error", "5 is not between"),
        ("job", "orchestration_config.client_selection.algorithm", "active_learning", "error", "is random, but"),
        ("selector", "selection_algorithm.max_clients", 9, "error", "9 is outside the job's min_clients (2)"),
        ("selector", "eligibility_criteria.custom_criteria", {"sied": 1}, "error", "did you mean 'side'?"),
        ("selector", "selection_algorithm.stratify_by", ["operator"], "error", "no column 'operator'"),
        ("selector", "blacklist.client_ids", ["c1", "zz"], "warning", "'zz' is not in the fleet"),
        ("job", "deployment_config", {"canary_clients": ["zz"]}, "warning", "'zz' is not in the fleet"),
        ("fleet", "clients", FLEET["clients"][:1], "error", "the fleet has only 1 clients"),
        ("job", f"{MODEL}.input_schema.signals", ["a", "bb"], "error", "the contract has no signal 'bb'"),
        ("job", f"{MODEL}.input_schema.signals", ["a", "a"], "error", "names a twice"),
        ("job", f"{MODEL}.input_schema", {"signal_group": "boht"}, "error", "did you mean 'both'?"),
        ("job", f"{MODEL}.input_schema.signal_group", "both", "error", "signals or signal_group, not both"),
        ("contract", "schema", {"format": "parquet"}, "warning", "lists no signals"),
        ("job", f"{MODEL}.model_hyperparameters.input_dim", 3, "error", "is 3, but the model reads 2 signals"),
        ("job", f"{MODEL}.model_hyperparameters.sequence_length", 9, "error", "window_size is 10"),
        ("job", f"{MODEL}.model_hyperparameters.num_classes", 3, "error", "there are 2 labels"),
        ("job", f"{MODEL}.model_hyperparameters.hiden_dim", 3, "error", "did you mean 'hidden_dim'?"),
        ("job", f"{MODEL}.input_schema.stride", 11, "warning", "samples between windows"),
        ("job", f"{MODEL}.architecture", "Custom", "error", "architecture Custom needs it"),
        ("job", f"{MODEL}.custom_class", "a.b:C", "error", "but the architecture is MLP"),
        ("job", f"{MODEL}.output_schema.threshold", 1.5, "error", "it is a probability"),
        ("job", f"{MODEL}.output_schema.labels", [0, 1, 2], "error", "binary_classification has two"),
        ("job", f"{MODEL}.output_schema.labels", [1, 1], "error", "names a label twice"),
        ("job", f"{HYPER}.class_weights", [1, 2, 3], "error", "3 weights for 2 labels"),
        ("job", f"{HYPER}.mu", 0.1, "error", "only FedProx has a proximal term"),
        ("job", "training_config.algorithm", "FedProx", "warning", "FedProx with mu 0 is FedAvg"),
        ("job", f"{HYPER}.optimizer", "SGD", "error", "SGD has no setting beta1"),
        ("job", f"{HYPER}.learning_rate", 0.9, "warning", "0.9 is high for Adam"),
        ("job", f"{HYPER}.loss_function", "MSELoss", "error", "no loss for binary_classification"),
        ("job", "training_config.global_training.early_stopping", True, "error", "neither patience nor threshold"),
        ("job", "privacy_config.differential_privacy", {**DP, "delta": 0.01}, "", ""),
        ("job", "privacy_config.differential_privacy", {**DP, "delta": 0}, "error", "cannot be reached"),
        ("job", "privacy_config.differential_privacy", {"enabled": True, "noise_multiplier": 1}, "warning", "clipped"),
        ("job", "privacy_config.differential_privacy", True, "error", "give epsilon or noise_multiplier"),
        ("job", "privacy_config.secure_aggregation", {"enabled": True, "threshold": 3}, "error", "could not be opened"),
        ("job", "orchestration_config.resources", {"memory_gb": 1e6}, "warning", "more than a machine has"),
        ("job", "orchestration_config.schedule", "cron", "error", "a schedule of type cron needs it"),
        ("job", "orchestration_config.schedule", "0 99 * * 0", "error", "is no cron expression"),
        ("job", "orchestration_config.schedule", "on_demand", "warning", "but the job is on_demand"),
        ("schedule", "cron_schedule.expression", "0 2 * * *", "warning", "is not weekly"),
        ("schedule", "cron_schedule.expression", "0 2 * * 6", "warning", "fires on Saturday"),
        ("schedule", "cron_schedule.expression", "0 3 * * 0", "warning", "fires at 03:00"),
        ("schedule", "cron_schedule.expression", "0 2 * * ", "error", "4 fields instead of five"),
        ("schedule", "cron_schedule.expression", "0 0 31 2 *", "error", "no cron expression"),
        (
            "schedule",
            "execution_constraints.allowed_windows",
            [{"days": ["Monday"], "start_time": "00:00", "end_time": "06:00"}],
            "warning",
            "the job would never run",
        ),
        (
            "schedule",
            "execution_constraints.blackout_periods",
            [{"name": "b", "start": "2020-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z"}],
            "warning",
            "every launch",
        ),
    ],
)
def test_each_check(kind: str, path: str, value: Any, severity: str, expected: str) -> None:
    found = findings({**GOOD, kind: changed(GOOD[kind], path, value)})
    if not severity:
        assert found == ()
        return
    shown = [f"{problem.severity}: {problem.message} {problem.hint or ''}" for problem in found]
    assert any(line.startswith(severity) and expected in line for line in shown), shown


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("package.module:Class", True),
        ("m:C", True),
        ("module.Class", False),
        ("a:b:c", False),
        ("a.:C", False),
        ("os; import x:C", False),
        (".a:C", False),
    ],
)
def test_the_form_of_a_custom_class(name: str, good: bool) -> None:
    job = changed(changed(long_job(), f"{MODEL}.architecture", "Custom"), f"{MODEL}.custom_class", name)
    job = changed(job, f"{MODEL}.model_hyperparameters.anything", {"goes": 1})
    assert bool(findings({"job": job})) is not good


def test_a_delta_that_protects_nobody() -> None:
    job = changed(long_job(), "privacy_config.differential_privacy", {**DP, "delta": 0.01})
    job = changed(job, "orchestration_config.max_clients", 200)
    assert "not below 1 / 200 clients" in findings({"job": job})[0].message


@pytest.mark.parametrize("good", ["0 2 * * 0", "*/30 * * * *", "0 0 1,15 * *", "0 2 * * MON-FRI"])
def test_good_cron_expressions(good: str) -> None:
    assert cron_trouble(good) is None
