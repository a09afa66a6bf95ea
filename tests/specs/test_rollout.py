"""Rollout policies: what one document can say wrongly by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from fedloom.specs.rollout import Rollout

GOOD: dict[str, Any] = {
    "rollout_metadata": {"rollout_id": "rollout-x", "name": "X", "version": "1.0.0", "job_ref": "fl-x"},
    "strategy": "progressive",
    "phases": [
        {"phase_name": "Canary", "phase_number": 1, "target_percentage": 5, "duration": "24 hours"},
        {"phase_name": "All", "phase_number": 2, "target_percentage": 100, "duration": "2 weeks"},
    ],
}


def with_phase(**change: Any) -> dict[str, Any]:
    spec = copy.deepcopy(GOOD)
    spec["phases"][0] |= change
    return spec


def test_accepts_the_good_one() -> None:
    rollout = Rollout.model_validate(GOOD)
    assert [phase.target_percentage for phase in rollout.phases] == [5.0, 100.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phase_number": 2}, "is number 1"),
        ({"target_percentage": 101}, "less than or equal to 100"),
        ({"target_percentage": "5"}, "valid number"),
        ({"target_count": 0}, "greater than or equal to 1"),
        ({"duration": "1 fortnight"}, "pattern"),
        ({"duration": "30 minutes"}, "pattern"),
        ({"duration": f"{10**30} weeks"}, "too long"),
        ({"specific_clients": ["a", "a"]}, "twice"),
        ({"specific_clients": ["a", "b"], "target_count": 1}, "target_count is 1"),
        ({"success_criteria": [{"metric": "vibes", "threshold": 1}]}, "drift_psi"),
        ({"success_criteria": [{"metric": "auc", "threshold": float("inf")}]}, "finite"),
        ({"phase_nane": "x"}, "Extra inputs"),
    ],
)
def test_refuses_phase(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rollout.model_validate(with_phase(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": []}, "at least 1 item"),
        ({"phases": [GOOD["phases"][1] | {"phase_number": 1}, GOOD["phases"][0] | {"phase_number": 2}]}, "goes back"),
        ({"strategy": "yolo"}, "blue_green"),
        ({"rollback_policy": {"auto_rollback": True, "conditions": []}}, "no condition"),
        (
            {"rollback_policy": {"auto_rollback": True, "conditions": [{"metric": "auc", "threshold": 0.5}]}},
            "comparison",
        ),
        ({"approval_workflow": {"approvers": [{"role": "R", "required_for_phases": [3]}]}}, "there are 2 phases"),
        ({"approval_workflow": {"approvers": [{"email": "nobody"}]}}, "pattern"),
        ({"safety_gates": {"per_phase_checks": [{"run_after": "phase_7"}]}}, "there are 2 phases"),
        ({"monitoring": {"metrics_collection_interval": "2 days"}}, "pattern"),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rollout.model_validate(GOOD | change)
