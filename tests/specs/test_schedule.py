"""Schedules and durations."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedloom.specs.fields import parse_duration, parse_timestamp
from fedloom.specs.schedule import Schedule

GOOD: dict[str, Any] = {
    "schedule_metadata": {"schedule_id": "schedule-x", "name": "X", "version": "1.0.0"},
    "schedule_type": "cron",
    "cron_schedule": {"expression": "0 2 * * 0", "end_date": None},
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"schedule_type": "on_demand", "cron_schedule": None},
        {"schedule_type": "periodic", "periodic_schedule": {"interval": "weekly", "time": "00:00 UTC"}},
        {
            "schedule_type": "event_driven",
            "event_driven_schedule": {"trigger_events": [{"event_type": "model_drift", "condition": "psi > 0.3"}]},
        },
        {
            "execution_constraints": {
                "allowed_windows": [{"days": ["Monday"], "start_time": "22:00", "end_time": "02:00"}]
            }
        },
    ],
)
def test_accepts(change: dict[str, Any]) -> None:
    Schedule.model_validate(GOOD | change)


def check(**fields: Any) -> dict[str, Any]:
    return {"pre_execution_checks": {"checks": [{"name": "c", "action_on_fail": "delay"} | fields]}}


def constraint(**fields: Any) -> dict[str, Any]:
    return {"execution_constraints": fields}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cron_schedule": None}, "cron_schedule is missing"),
        ({"schedule_type": "periodic"}, "periodic_schedule is missing"),
        ({"schedule_type": "event_driven"}, "event_driven_schedule is missing"),
        ({"cron_schedule": {"expression": "* * * * *", "timezone": "Mars/Olympus"}}, "no time zone"),
        (
            {
                "cron_schedule": {
                    "expression": "* * * * *",
                    "start_date": "2025-01-01T00:00:00Z",
                    "end_date": "2024-01-01T00:00:00Z",
                }
            },
            "not after start_date",
        ),
        (check(type="guess"), "eligibility_count"),
        (check(type="eligibility_count"), "min_eligible_clients"),
        (check(type="eligibility_count", min_eligible_clients=1, min_quality_score=1), "Extra inputs"),
        (check(type="concurrency_check", max_concurrent_jobs=0), "greater than or equal to 1"),
        (check(type="resource_check", required_resources={"cpu_cores": -1}), "greater than 0"),
        (constraint(max_duration="0 hours"), "zero"),
        (constraint(max_duration="soon"), "pattern"),
        (constraint(allowed_windows=[{"days": ["Funday"], "start_time": "00:00", "end_time": "01:00"}]), "Monday"),
        (constraint(allowed_windows=[{"days": ["Monday"], "start_time": "24:00", "end_time": "01:00"}]), "pattern"),
        (constraint(allowed_windows=[{"days": ["Monday"], "start_time": "01:00", "end_time": "01:00"}]), "never opens"),
        (
            constraint(
                blackout_periods=[{"name": "b", "start": "2025-01-02T00:00:00Z", "end": "2025-01-02T00:00:00Z"}]
            ),
            "not after start",
        ),
        (constraint(retry_policy={"max_retries": 1, "backoff_multiplier": 0.5}), "greater than or equal to 1"),
        ({"notifications": {"on_explosion": {}}}, "Extra inputs"),
        ({"notifications": {"on_start": {"channels": ["pigeon"]}}}, "pagerduty"),
        ({"schedule_metadata": {"schedule_id": "x", "name": "X", "version": "1.0.0"}}, "pattern"),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule.model_validate(copy.deepcopy(GOOD) | change)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1 second", 1),
        ("30 minutes", 1800),
        ("1 hours", 3600),
        ("8  hours", 28800),
        ("7 days", 604800),
        ("2 weeks", 1209600),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,30} (hours|days|months|)"))
def test_durations_are_read_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert duration >= timedelta(0)


def test_timestamps_without_offset_are_utc() -> None:
    assert parse_timestamp("2024-01-01T00:00:00") == parse_timestamp("2024-01-01T01:00:00+01:00")
