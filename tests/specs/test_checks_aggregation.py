"""What a job may say of aggregation: places that agree, checks that exist, settings that belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError, errors
from tests.conftest import write_job

ROUND = {"shard_size": 2, "aggregation": {"min_quorum": 2, "weights": "uniform", "staleness_threshold": 3}}
ADAM = {"learning_rate": 0.01, "optimizer": "Adam"}


def checks(*listed: dict[str, Any]) -> dict[str, Any]:
    return {"aggregation_config": {"quality_checks": {"checks": list(listed)}}}


def server(algorithm: str, **settings: Any) -> dict[str, Any]:
    return {"algorithm": algorithm, "hyperparameters": {**ADAM, "server_optimizer": settings}}


# Where the tiny job has a short form, a place is shown as it is written there.
TWO_PLACES = [
    (
        {"aggregation_config": {"algorithm": "FedProx"}},
        "aggregation_config.algorithm",
        "algorithm",
    ),
    (
        {"aggregation_config": {"weighting": {"strategy": "num_samples"}}, "orchestration_config": ROUND},
        "aggregation_config.weighting.strategy",
        "orchestration_config.aggregation.weights",
    ),
    (
        {
            "aggregation_config": {"quality_checks": {"staleness": {"max_rounds_stale": 2}}},
            "orchestration_config": ROUND,
        },
        "aggregation_config.quality_checks.staleness.max_rounds_stale",
        "orchestration_config.aggregation.staleness_threshold",
    ),
    (
        {"aggregation_config": {"differential_privacy": {"enabled": True}}},
        "aggregation_config.differential_privacy.enabled",
        "differential_privacy",
    ),
    (
        {"aggregation_config": {"secure_aggregation": {"enabled": True}}},
        "aggregation_config.secure_aggregation.enabled",
        "secure_aggregation",
    ),
    (
        {"aggregation_config": {"algorithm": "Krum", "byzantine_robust": {"enabled": True, "method": "median"}}},
        "aggregation_config.algorithm",
        "aggregation_config.byzantine_robust.method",
    ),
    (
        {"aggregation_config": {"algorithm": "Median", "byzantine_robust": {"enabled": False}}},
        "aggregation_config.algorithm",
        "aggregation_config.byzantine_robust.enabled",
    ),
]


@pytest.mark.parametrize(("changes", "here", "there"), TWO_PLACES)
def test_two_places_that_say_different_things_are_errors_both(
    tmp_path: Path, changes: dict[str, Any], here: str, there: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load_job(write_job(tmp_path / "job", **changes))
    found = errors(caught.value.problems)
    assert [problem.path for problem in found] == [here, there]
    assert all(problem.line > 0 for problem in found)


ONE_PLACE = [
    ({"aggregation_config": {"byzantine_robust": True}}, "method: is missing"),
    (checks({"name": "gradient_norms", "threshold": 1.0}), "there is no check 'gradient_norms' of updates; known are"),
    (checks({"name": "gradient_norm"}), "is missing: gradient_norm needs it"),
    (checks({"name": "gradient_norm", "threshold": 1.0, "metric": "l2"}), "gradient_norm has no metric"),
    (checks({"name": "loss_improvement", "threshold": 1.0}), "loss_improvement has no threshold"),
    (
        checks({"name": "loss_improvement", "min_improvement": 0.0, "action": "clip"}),
        "loss_improvement cannot clip an update",
    ),
    (checks({"name": "data_poisoning_score", "threshold": 1.5}), "is never exceeded"),
    (checks({"name": "parameter_distance", "threshold": 1.0, "metric": "l3"}), "there is no distance 'l3'"),
    (
        checks({"name": "parameter_distance", "threshold": 1.0, "metric": "cosine", "action": "clip"}),
        "a cosine distance cannot be clipped",
    ),
    (server("FedAvg", name="Adam"), "the algorithm FedAvg has no optimizer at the server"),
    (server("FedOpt", learning_rate=0.1), "FedOpt needs to know the server's optimizer"),
    ({"algorithm": "FedOpt"}, "FedOpt needs to know the server's optimizer"),
    (server("FedYogi", name="Adam"), "is Adam, but the algorithm is FedYogi"),
    (server("FedOpt", name="SGD", tau=0.1), "SGD has no setting tau"),
    (server("FedOpt", name="AdaGrad", beta2=0.9), "AdaGrad has no setting beta2"),
    ({"orchestration_config": {"aggregation": {"weights": "custom"}}}, "weight_column: is missing"),
    ({"orchestration_config": {"aggregation": {"weight_column": "x"}}}, "is given, but the weights are num_samples"),
]


@pytest.mark.parametrize(("changes", "message"), ONE_PLACE, ids=lambda v: v if isinstance(v, str) else "")
def test_what_cannot_be_meant_is_an_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_job(write_job(tmp_path / "job", **changes))
    assert any(message in f"{p.path}: {p.message}" for p in errors(caught.value.problems)), caught.value


GOOD = [
    {"aggregation_config": {"algorithm": "FedAvg", "weighting": "num_samples", "byzantine_robust": "krum"}},
    {"aggregation_config": {"algorithm": "Median"}, "algorithm": "FedProx", "hyperparameters": {**ADAM, "mu": 0.1}},
    {"aggregation_config": {"weighting": {"strategy": "loss_based"}}},
    server("FedOpt", name="SGD", momentum=0.5),
    server("FedAdam", beta1=0.5, tau=0.01),
    {"algorithm": "FedYogi"},
    checks({"name": "parameter_distance", "threshold": 1.0, "metric": "linf", "action": "clip"}),
]


@pytest.mark.parametrize("changes", GOOD)
def test_what_goes_together_is_accepted(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert load_job(write_job(tmp_path / "job", **changes)).job.job_id == "fl-tiny"
