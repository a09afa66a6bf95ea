"""Cron, and what cron cannot say, checked against a plain reading of the same specs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedloom.deploy.argo.expressions import evaluate, parse
from fedloom.deploy.argo.schedule import DAYS, cron_spec, limits, notes, priority
from fedloom.specs.bundle import JobBundle, load_job
from fedloom.specs.problems import SpecError

Job = Callable[..., JobBundle]


@pytest.fixture
def job(copy_example: Callable[[str], Path]) -> Job:
    """The example with another schedule.yaml; a key of None takes a section away."""
    folder = copy_example("aircraft_accel_v1")
    given_schedule = yaml.safe_load((folder / "schedule.yaml").read_text())

    def make(**changes: Any) -> JobBundle:
        schedule = {key: value for key, value in (given_schedule | changes).items() if value is not None}
        (folder / "schedule.yaml").write_text(yaml.safe_dump(schedule))
        return load_job(folder)

    return make


def allows(when: str | None, now: datetime, last: datetime | None = None) -> bool:
    """What Argo would make of `when` at a time."""
    if when is None:
        return True
    assert when.startswith("{{= ")
    assert when.endswith(" }}")
    # Argo reads the expression as the inside of a JSON string.
    assert not set('"\\\n') & set(when)
    value = evaluate(parse(when[4:-3]), {"cronworkflow.lastScheduledTime": last}, now=now)
    assert isinstance(value, bool)
    return value


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("periodic", "cron"),
    [
        ({"interval": "hourly"}, "0 * * * *"),
        ({"interval": "hourly", "time": "00:20 UTC"}, "20 * * * *"),
        ({"interval": "daily", "time": "04:05 UTC"}, "5 4 * * *"),
        ({"interval": "daily"}, "0 0 * * *"),
        ({"interval": "weekly", "day_of_week": "Saturday", "time": "23:30 UTC"}, "30 23 * * 6"),
        ({"interval": "weekly"}, "0 0 * * 0"),
        ({"interval": "bi_weekly", "day_of_week": "Monday"}, "0 0 * * 1"),
        ({"interval": "monthly", "day_of_month": 15, "time": "01:00 UTC"}, "0 1 15 * *"),
        ({"interval": "monthly"}, "0 0 1 * *"),
    ],
)
def test_every_interval(job: Job, periodic: dict[str, Any], cron: str) -> None:
    spec = cron_spec(job(schedule_type="periodic", cron_schedule=None, periodic_schedule=periodic))
    assert spec is not None
    assert (spec.schedules, spec.timezone) == ((cron,), "UTC")
    assert spec.starting_deadline_s == 3600


@pytest.mark.parametrize(
    ("said", "cron"),
    [
        ("on_demand", None),
        ({"type": "weekly", "launch_day": "Friday", "launch_time": "03:00 UTC"}, "0 3 * * 5"),
        ({"type": "weekly"}, "0 0 * * 0"),
        ({"type": "bi_weekly", "launch_day": "Friday"}, "0 0 * * 5"),
        ({"type": "cron", "cron_expression": "*/30 * * * *"}, "*/30 * * * *"),
    ],
)
def test_without_a_schedule_file_the_job_says_when(
    copy_example: Callable[[str], Path], said: Any, cron: str | None
) -> None:
    folder = copy_example("aircraft_accel_v1")
    (folder / "schedule.yaml").unlink()
    text = yaml.safe_load((folder / "job.yaml").read_text())
    text["orchestration_config"]["schedule"] = {"type": said} if isinstance(said, str) else said
    (folder / "job.yaml").write_text(yaml.safe_dump(text))
    spec = cron_spec(load_job(folder))
    assert (None if spec is None else spec.schedules) == (None if cron is None else (cron,))
    if cron == "*/30 * * * *":
        assert spec is not None
        assert spec.starting_deadline_s == 1800


def test_every_other_week_from_the_first_launch_day_after_it_was_written(job: Job) -> None:
    periodic = {"interval": "bi_weekly", "day_of_week": "Monday", "time": "02:00 UTC"}
    spec = cron_spec(
        job(schedule_type="periodic", cron_schedule=None, periodic_schedule=periodic, execution_constraints=None)
    )
    assert spec is not None
    mondays = [at("2026-11-16T02:00:00") + timedelta(weeks=i) for i in range(6)]
    launched = [f"{monday:%m-%d}" for monday in mondays if allows(spec.when, monday)]
    assert launched == ["11-23", "12-07", "12-21"]  # written on Sunday, 22 November


def test_start_and_end(job: Job) -> None:
    cron = {"expression": "0 * * * *", "start_date": "2026-12-01T00:00:00+02:00", "end_date": "2026-12-02T00:00:00Z"}
    spec = cron_spec(job(cron_schedule=cron, execution_constraints=None))
    assert spec is not None
    assert not allows(spec.when, at("2026-11-30T21:59:59"))
    assert allows(spec.when, at("2026-11-30T22:00:00"))
    assert allows(spec.when, at("2026-12-01T23:59:59"))
    assert not allows(spec.when, at("2026-12-02T00:00:00"))
    assert spec.stop is not None
    assert evaluate(parse(spec.stop), {}, now=at("2026-12-02T00:00:00")) is True


def test_switched_off(job: Job) -> None:
    spec = cron_spec(job(cron_schedule={"expression": "0 2 * * 0", "enabled": False}))
    assert spec is not None
    assert spec.suspend


@pytest.mark.parametrize(
    ("expression", "zone", "second", "runs"),
    [
        ("30 2 * * *", "Europe/Paris", "2026-10-25T01:30:00", False),  # 02:30 comes twice that night
        ("0 * * * *", "Europe/Paris", "2026-10-25T01:30:00", True),  # an hour is an hour
    ],
)
def test_clocks_set_back_do_not_launch_twice(job: Job, expression: str, zone: str, second: str, runs: bool) -> None:
    cron = {"expression": expression, "timezone": zone}
    spec = cron_spec(job(cron_schedule=cron, execution_constraints=None))
    assert spec is not None
    first = at(second) - timedelta(hours=1)
    assert allows(spec.when, first)
    assert allows(spec.when, at(second), last=first) is runs
    assert allows(spec.when, at(second) + timedelta(days=1), last=first)


def test_clocks_set_forward_lose_no_launch(job: Job) -> None:
    cron = {"expression": "0 1,3 * * *", "timezone": "Europe/Paris"}
    spec = cron_spec(job(cron_schedule=cron, execution_constraints=None))
    assert spec is not None
    # 01:00 in winter time, and 03:00 in summer time an hour later.
    assert allows(spec.when, at("2026-03-29T01:00:01"), last=at("2026-03-29T00:00:00"))


@pytest.mark.parametrize(
    ("zone", "guarded"),
    [("UTC", False), ("Etc/GMT+3", False), ("Asia/Kolkata", False), ("Africa/Casablanca", True)],
)
def test_only_clocks_that_are_set_need_a_guard(job: Job, zone: str, guarded: bool) -> None:
    spec = cron_spec(job(cron_schedule={"expression": "0 2 * * *", "timezone": zone}, execution_constraints=None))
    assert spec is not None
    assert (spec.when is not None) is guarded


def test_events_are_refused_with_another_way(job: Job) -> None:
    event = {"trigger_events": [{"event_type": "model_drift", "condition": "psi > 0.3"}]}
    with pytest.raises(SpecError, match=r"schedule_type: is event_driven.*\n.*Argo Events"):
        cron_spec(job(schedule_type="event_driven", cron_schedule=None, event_driven_schedule=event))


def test_limits_and_priority(job: Job) -> None:
    found = limits(job())
    assert (found.max_duration_s, found.retries, found.retry_delay_s, found.backoff_factor) == (7200, 2, 900, 2.0)
    assert limits(job(execution_constraints=None)).retries is None
    off = {"retry_policy": {"enabled": False, "max_retries": 3}}
    assert limits(job(execution_constraints=off)).retries == 0
    assert priority(job()) == 10
    assert priority(job(resource_allocation={"priority": "low"})) == -10


def test_notes_are_of_what_would_have_been_done(job: Job) -> None:
    unsent = {"on_start": {"enabled": False, "channels": ["email"]}, "on_skip": {"recipients": ["ml@example.org"]}}
    check = {"name": "Enough", "type": "eligibility_count", "min_eligible_clients": 8, "action_on_fail": "delay"}
    bundle = job(notifications=unsent, monitoring=None, pre_execution_checks={"checks": [check]})
    assert notes(bundle) == ["the check 'Enough' fails the run: delay is not carried out"]


def test_what_is_not_carried_out_is_said(job: Job) -> None:
    assert notes(job()) == [
        "the check 'Enough clients' fails the run: skip_round is not carried out",
        "the check 'Clean data' (data_quality_check) is not made before a launch",
        "nobody is told on_skip: runs tell of their end only",
        "alerts of the schedule are for your monitoring system; the metrics are there",
    ]


clock = st.times().map(lambda time: f"{time:%H:%M}")
zones = st.sampled_from(["UTC", "Europe/Paris", "Asia/Kolkata", "America/New_York"])
instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda now: now.replace(tzinfo=UTC))


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    start = draw(clock)
    return {
        "days": draw(st.lists(st.sampled_from(DAYS), min_size=1, max_size=3, unique=True)),
        "start_time": start,
        "end_time": draw(clock.filter(lambda end: end != start)),
        "timezone": draw(zones),
    }


def inside(now: datetime, window: dict[str, Any]) -> bool:
    """The same in plain Python: the windows that open today and yesterday, as intervals of local time."""
    local = now.astimezone(ZoneInfo(window["timezone"])).replace(tzinfo=None)
    for back in (0, 1):
        day = local.date() - timedelta(days=back)
        if f"{day:%A}" not in window["days"]:
            continue
        opens = datetime.combine(day, datetime.strptime(window["start_time"], "%H:%M").time())
        closes = datetime.combine(day, datetime.strptime(window["end_time"], "%H:%M").time())
        if opens <= local < (closes if closes > opens else closes + timedelta(days=1)):
            return True
    return False


BUNDLES: dict[str, JobBundle] = {}


@given(st.lists(windows(), min_size=1, max_size=3), instants, st.integers(0, 400), st.integers(1, 60))
def test_windows_and_blackouts_mean_the_same_in_argo(
    chosen: list[dict[str, Any]], now: datetime, starts: int, lasts: int
) -> None:
    from fedloom.specs.bundle import EXAMPLES
    from fedloom.specs.schedule import ExecutionConstraints

    bundle = BUNDLES.setdefault("example", load_job(EXAMPLES / "aircraft_accel_v1"))
    begin = at("2026-06-01T00:00:00") + timedelta(days=starts)
    end = begin + timedelta(days=lasts)
    period = {"name": "freeze", "start": begin.isoformat(), "end": end.isoformat()}
    bounds = ExecutionConstraints.model_validate({"allowed_windows": chosen, "blackout_periods": [period]})
    from dataclasses import replace

    assert bundle.schedule is not None
    cron = bundle.schedule.cron_schedule
    assert cron is not None
    schedule = bundle.schedule.model_copy(
        update={"execution_constraints": bounds, "cron_schedule": cron.model_copy(update={"start_date": None})}
    )
    spec = cron_spec(replace(bundle, schedule=schedule))
    assert spec is not None
    expected = any(inside(now, window) for window in chosen) and not begin <= now < end
    assert allows(spec.when, now) is expected


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Paris", "2026-03-28"),
        ("Europe/Paris", "2026-10-24"),
        ("America/New_York", "2026-03-07"),
        ("America/New_York", "2026-10-31"),
        ("Australia/Lord_Howe", "2026-04-04"),  # by half an hour
        ("Australia/Lord_Howe", "2026-10-03"),
    ],
)
@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("apart", [3, 4, 12, 20])
@pytest.mark.parametrize("minute", [0, 30])
def test_each_time_of_the_clock_launches_once(zone: str, day: str, first: int, apart: int, minute: int) -> None:
    """Around every change of clocks: no launch is lost when they are set forward, none doubled when set back."""
    from dataclasses import replace

    from fedloom.specs.bundle import EXAMPLES
    from fedloom.specs.schedule import CronSchedule

    bundle = BUNDLES.setdefault("example", load_job(EXAMPLES / "aircraft_accel_v1"))
    assert bundle.schedule is not None
    hours = (first, first + apart)
    cron = CronSchedule(expression=f"{minute} {hours[0]},{hours[1]} * * *", timezone=zone)
    schedule = bundle.schedule.model_copy(update={"cron_schedule": cron, "execution_constraints": None})
    spec = cron_spec(replace(bundle, schedule=schedule))
    assert spec is not None
    seen: set[str] = set()
    last = None
    for half_hours in range(3 * 48):
        now = at(f"{day}T00:00:00") + timedelta(minutes=30 * half_hours)
        local = now.astimezone(ZoneInfo(zone))
        if local.minute != minute or local.hour not in hours:
            continue
        reading = f"{local:%d %H:%M}"
        assert allows(spec.when, now + timedelta(seconds=2), last) is (reading not in seen)
        last = last if reading in seen else now
        seen.add(reading)
