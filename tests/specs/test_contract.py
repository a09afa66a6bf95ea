"""Data contracts and the documents beside them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from fedloom.specs.contract import DataContract, signal_catalog
from fedloom.specs.contract_parts import Constraints, DpPolicy, PiiMap, Slas

VERSION = {"version": "1.0.0"}
GOOD: dict[str, Any] = {
    "contract_metadata": {"contract_id": "c", "version": "1.0.0"},
    "schema": {
        "format": "parquet",
        "total_signals": 2,
        "signals": [{"name": "a", "unit": "g", "min": -1, "max": 1, "mean": 0, "std": 0.5}, {"name": "b"}],
        "signal_groups": {"one": ["a"], "both": ["b", "a"]},
        "label_column": "label",
    },
}


def test_catalog() -> None:
    catalog = signal_catalog(DataContract.model_validate(GOOD))
    assert catalog.names == ("a", "b")
    assert catalog.groups == {"one": ("a",), "both": ("b", "a")}
    assert catalog.nominal == {"a": (0.0, 0.5)}
    assert catalog.label_column == "label"


def test_schema_keeps_its_name_outside() -> None:
    contract = DataContract.model_validate(GOOD)
    assert contract.model_dump(by_alias=True)["schema"]["total_signals"] == 2
    assert "schema" in DataContract.model_json_schema()["properties"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_signals": 3}, "2 signals are listed"),
        ({"signals": [{"name": "a"}, {"name": "a"}]}, "named twice: a"),
        ({"signals": [{"name": "a", "min": 2, "max": 1}], "total_signals": 1}, "above max"),
        ({"signals": [{"name": "a", "max": 1, "mean": 2, "std": 1}], "total_signals": 1}, "not between"),
        ({"signals": [{"name": "a", "mean": 2}], "total_signals": 1}, "both mean and std"),
        ({"signals": [{"name": "a", "mean": 0, "std": 0}], "total_signals": 1}, "greater than 0"),
        ({"signals": [{"name": "a b"}]}, "pattern"),
        ({"label_column": "a"}, "also listed as a signal"),
        ({"signal_groups": {"g": ["a", "z"]}}, "unknown signals: z"),
        ({"signal_groups": {"g": []}}, "empty"),
        ({"signal_groups": {"g": ["a", "a"]}}, "twice"),
        ({"signal": []}, "Extra inputs"),
        ({"total_signals": True}, "valid integer"),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    spec = copy.deepcopy(GOOD)
    spec["schema"] |= change
    with pytest.raises(ValidationError, match=message):
        DataContract.model_validate(spec)


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        (DpPolicy, {"dp_metadata": VERSION, "privacy_budget": {"epsilon": 0, "delta": 0.1}}, "greater than 0"),
        (DpPolicy, {"dp_metadata": VERSION, "privacy_budget": {"epsilon": 1, "delta": 1}}, "less than 1"),
        (DpPolicy, {"dp_metadata": VERSION, "privacy_budget": {"epsilon": 1, "delta": 0}, "x": 1}, "Extra"),
        (
            Constraints,
            {"constraints_metadata": {"version": "1.0.0"}, "range_constraints": [{"signal": "a", "min": 2, "max": 1}]},
            "above max",
        ),
        (
            PiiMap,
            {
                "pii_metadata": {"version": "1.0.0"},
                "pii_fields": [
                    {
                        "field_name": "f",
                        "pii_type": "pseudonym",
                        "sensitivity": "low",
                        "present_in_contract": True,
                        "action": "MUST_EXCLUDE",
                    }
                ],
            },
            "present_in_contract is true",
        ),
        (Slas, {"sla_metadata": {"version": "1"}}, "pattern"),
    ],
)
def test_companions_refuse(model: type[BaseModel], spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(spec)


def test_service_levels_keep_what_else_is_said() -> None:
    slas = Slas.model_validate(
        {"sla_metadata": {"version": "1.0.0"}, "availability": {"target": "99%", "penalties": {"below": "10%"}}}
    )
    assert slas.model_dump()["availability"]["penalties"] == {"below": "10%"}
