"""Selectors: what the model accepts, and eligibility as tests on columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedloom.specs.criteria import COLUMNS, Criterion, criteria, needed_columns
from fedloom.specs.selector import Selector

GOOD: dict[str, Any] = {
    "selector_metadata": {"selector_id": "selector-x", "name": "X", "version": "1.0.0"},
    "eligibility_criteria": {"min_data_samples": 10},
    "selection_algorithm": {"algorithm": "random", "num_clients": 5, "min_clients": 2, "max_clients": 8},
    "fairness_policy": {},
}


def selector(**eligibility: Any) -> Selector:
    spec = copy.deepcopy(GOOD)
    spec["eligibility_criteria"] |= eligibility
    return Selector.model_validate(spec)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("selector_metadata", {"selector_id": "x"}, "pattern"),
        ("selector_metadata", {"version": "1.0"}, "pattern"),
        ("selector_metadata", {"created_at": "2024-13-01T00:00:00Z"}, "no date and time"),
        ("eligibility_criteria", {"min_data_samples": True}, "valid integer"),
        ("eligibility_criteria", {"min_data_samples": "5"}, "valid integer"),
        ("eligibility_criteria", {"min_data_samples": 5.0}, "valid integer"),
        ("eligibility_criteria", {"min_data_samples": 0}, "greater than or equal to 1"),
        ("eligibility_criteria", {"min_flight_hours": float("nan")}, "finite"),
        ("eligibility_criteria", {"min_flight_hours": -1}, "greater than or equal to 0"),
        ("eligibility_criteria", {"data_quality_threshold": 1.5}, "less than or equal to 1"),
        ("eligibility_criteria", {"data_quality_threshold": True}, "valid number"),
        ("eligibility_criteria", {"no_open_ncrs": 1}, "valid boolean"),
        ("eligibility_criteria", {"no_open_ncrs": "yes"}, "valid boolean"),
        ("eligibility_criteria", {"connectivity_requirement": "wifi"}, "ground_only"),
        ("eligibility_criteria", {"aircraft_age_range": {"min_years": 3, "max_years": 2}}, "above max_years"),
        ("eligibility_criteria", {"custom_criteria": {"age_min": "old"}}, "must be a number"),
        ("eligibility_criteria", {"custom_criteria": {"age_max": True}}, "must be a number"),
        ("eligibility_criteria", {"custom_criteria": {"age_min": 2, "age_max": 1}}, "above age_max"),
        ("eligibility_criteria", {"custom_criteria": {"site": []}}, "empty list"),
        ("eligibility_criteria", {"custom_criteria": {"_min": 1}}, "names no fleet column"),
        ("eligibility_criteria", {"custom_criteria": {"a b": 1}}, "names no fleet column"),
        ("eligibility_criteria", {"min_samples": 3}, "Extra inputs"),
        ("selection_algorithm", {"num_clients": 1}, "below min_clients"),
        ("selection_algorithm", {"num_clients": 9}, "above max_clients"),
        ("selection_algorithm", {"min_clients": 9}, "above max_clients"),
        ("selection_algorithm", {"algorithm": "best"}, "importance_sampling"),
        ("selection_algorithm", {"exploration_rate": 1.1}, "less than or equal to 1"),
        ("selection_algorithm", {"stratify_by": ["operator", "operator"]}, "twice"),
        ("selection_algorithm", {"on_shortfall": "wait"}, "belong together"),
        ("selection_algorithm", {"max_wait": 5}, "belong together"),
        ("selection_algorithm", {"on_shortfall": "hope"}, "skip_round"),
        ("selection_algorithm", {"sampling_weights": {"x": -1.0}}, "greater than or equal to 0"),
        ("selection_algorithm", {"sampling_weights": {"x": 1e308}}, "less than or equal to 1000000"),
        ("selection_algorithm", {"sampling_weights": {"x": {"A": 2e6}}}, "less than or equal to 1000000"),
        ("selection_algorithm", {"sampling_weights": {"x": 0.0}}, "the weights of columns are all 0"),
        ("selection_algorithm", {"sampling_weights": {"x": {"A": 0.0}}}, "gives no value a weight above 0"),
        ("selection_algorithm", {"sampling_weights": {"a b": 1.0}}, "names no fleet column"),
        ("eligibility_criteria", {"where": " "}, "must not be blank"),
        ("selection_algorithm", {"sampling_weights": {"operator": {"A": -1}}}, "greater than or equal to 0"),
        (
            "fairness_policy",
            {"min_participation_per_period": 3, "max_participation_per_period": 2},
            "above max_participation",
        ),
        ("fairness_policy", {"period": "day"}, "quarter"),
    ],
)
def test_refuses(section: str, change: dict[str, Any], message: str) -> None:
    spec = copy.deepcopy(GOOD)
    spec[section] |= change
    with pytest.raises(ValidationError, match=message):
        Selector.model_validate(spec)


def test_criteria_of_everything() -> None:
    asked = selector(
        min_flight_hours=1,
        min_flight_hours_since_last_round=2,
        data_quality_threshold=0.9,
        hardware_health_check=True,
        connectivity_requirement="ground_only",
        no_open_ncrs=True,
        no_active_alerts=True,
        aircraft_types=["A320"],
        aircraft_age_range={"min_years": 0.5, "max_years": 30},
        geographic_region=["EU"],
        custom_criteria={"imu": True, "age_min": 1, "age_max": 9, "site": ["n", "s"], "kind": "x"},
    )
    needed = needed_columns(asked)
    assert set(COLUMNS) <= set(needed.values())
    assert {path: needed[f"eligibility_criteria.custom_criteria.{path}"] for path in ("imu", "age_min", "age_max")} == {
        "imu": "imu",
        "age_min": "age",
        "age_max": "age",
    }
    tests = {criterion.path.removeprefix("eligibility_criteria."): criterion for criterion in criteria(asked)}
    assert (tests["connectivity_requirement"].test, tests["connectivity_requirement"].value) == (
        "one_of",
        ("ground", "hybrid"),
    )
    assert tests["aircraft_age_range.min_years"].value == 0.5
    assert tests["custom_criteria.site"].test == "one_of"


def test_criteria_that_admit_all_need_no_column() -> None:
    admits = selector(aircraft_types=[], geographic_region=[], no_open_ncrs=False, connectivity_requirement="any")
    assert needed_columns(admits) == {"eligibility_criteria.min_data_samples": "data_samples"}


@pytest.mark.parametrize(
    ("test", "value", "given_value", "passes"),
    [
        ("at_least", 3, 3, True),
        ("at_least", 3, 2.9, False),
        ("at_least", 3, "9", False),
        ("at_most", 0, False, True),
        ("at_most", 0, True, False),
        ("at_most", 0, 1, False),
        ("equals", True, True, True),
        ("equals", True, 1, False),
        ("equals", 1, True, False),
        ("equals", 1, 1.0, True),
        ("equals", "a", "a", True),
        ("one_of", ("a", "b"), "b", True),
        ("one_of", (1, 2), True, False),
        ("one_of", ("a",), "c", False),
    ],
)
def test_accepts(test: Any, value: Any, given_value: Any, passes: bool) -> None:
    assert Criterion("p", "c", test, value).accepts(given_value) is passes


@given(st.sampled_from(["equals", "one_of", "at_least", "at_most"]), st.integers())
def test_an_unknown_value_never_passes(test: Any, value: int) -> None:
    assert not Criterion("p", "c", test, value).accepts(None)
