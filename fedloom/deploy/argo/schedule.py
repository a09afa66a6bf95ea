"""When a job is launched, in the words of a CronWorkflow.

What cron cannot say (windows, blackouts, every other week, the first and the last day) becomes one expression
that Argo evaluates at each launch. Where a spec names no time, cron's macros hold: hourly is at minute 0, weekly
on Sunday at 00:00, monthly on the 1st.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from fedloom.specs.bundle import JobBundle
from fedloom.specs.fields import parse_duration, parse_timestamp
from fedloom.specs.problems import Problem, SpecError
from fedloom.specs.schedule import AllowedWindow, BlackoutPeriod, PeriodicSchedule, Schedule
from fedloom.specs.trails import Trail

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_DEADLINE_S = 3600
_GUARDED_FROM_S, _GUARD_S = 3 * 3600, 5400
_PRIORITY = {"low": -10, "normal": 0, "medium": 0, "high": 10, "critical": 20}
_START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class CronSpec:
    """When a CronWorkflow launches.

    Attributes:
        schedules: Cron expressions.
        timezone: Their time zone.
        suspend: Whether it is switched off.
        when: What must hold besides; None for nothing.
        stop: When it is over for good; None for never.
        starting_deadline_s: Seconds by which a launch may be late, e.g. because the controller was down.
    """

    schedules: tuple[str, ...]
    timezone: str = "UTC"
    suspend: bool = False
    when: str | None = None
    stop: str | None = None
    starting_deadline_s: int = _DEADLINE_S


@dataclass(frozen=True)
class Limits:
    """What a schedule says of an execution that lasts or fails; None where it says nothing."""

    max_duration_s: int | None = None
    retries: int | None = None
    retry_delay_s: int | None = None
    backoff_factor: float | None = None


def cron_spec(bundle: JobBundle) -> CronSpec | None:
    """When a job is launched: as schedule.yaml says, else as the job does.

    Returns:
        None for a job that is launched on demand.

    Raises:
        SpecError: when Argo has no word for it.
    """
    schedule = bundle.schedule
    if schedule is None:
        return _of_job(bundle)
    if schedule.schedule_type == "on_demand":
        return None
    if schedule.schedule_type == "event_driven" or (
        schedule.cron_schedule is None and schedule.periodic_schedule is None
    ):
        message = "is event_driven, and Argo's CronWorkflow knows no events"
        hint = "write on_demand, and let a Sensor of Argo Events create the rendered workflow.yaml"
        raise SpecError([bundle.problem("schedule", ("schedule_type",), "error", message, hint)])
    conditions = []
    cron, periodic = schedule.cron_schedule, schedule.periodic_schedule
    if schedule.schedule_type == "cron" and cron is not None:
        expression, zone, suspend = cron.expression, cron.timezone, not cron.enabled
        start, end = cron.start_date, cron.end_date
    else:
        assert periodic is not None
        expression, zone, suspend, start, end = _periodic(periodic), "UTC", False, None, None
        if periodic.interval == "bi_weekly":
            conditions.append(_every_other_week(bundle, schedule, periodic.day_of_week or "Sunday"))
    if start is not None:
        conditions.append(f"now() >= {_date(start)}")
    if end is not None:
        conditions.append(f"now() < {_date(end)}")
    bounds = schedule.execution_constraints
    if bounds is not None:
        conditions += [_windows(bounds.allowed_windows)] if bounds.allowed_windows else []
        conditions += [_not_in(period) for period in bounds.blackout_periods]
    return _cron(expression, zone, suspend, conditions, f"now() >= {_date(end)}" if end is not None else None)


def limits(bundle: JobBundle) -> Limits:
    """How long an execution may last, and what happens after a failure."""
    bounds = bundle.schedule.execution_constraints if bundle.schedule else None
    if bounds is None:
        return Limits()
    longest = parse_duration(bounds.max_duration).total_seconds() if bounds.max_duration else None
    policy = bounds.retry_policy
    if policy is None:
        return Limits(None if longest is None else int(longest))
    delay = int(parse_duration(policy.retry_delay).total_seconds()) if policy.retry_delay else None
    return Limits(
        max_duration_s=None if longest is None else int(longest),
        retries=policy.max_retries if policy.enabled else 0,
        retry_delay_s=delay,
        backoff_factor=policy.backoff_multiplier,
    )


def priority(bundle: JobBundle) -> int:
    """The job's place among workflows that wait: 0 is normal, higher runs earlier."""
    allocated = bundle.schedule.resource_allocation if bundle.schedule else None
    return _PRIORITY[allocated.priority if allocated else bundle.job.metadata.priority]


def notes(bundle: JobBundle) -> list[str]:
    """What the schedule says and the rendered manifests do not act upon."""
    schedule = bundle.schedule
    found: list[str] = []
    if schedule is None:
        return found
    checks = schedule.pre_execution_checks
    for check in checks.checks if checks is not None and checks.enabled else ():
        if check.type == "resource_check":
            continue  # pods ask for what they need, and wait for it
        if check.type == "concurrency_check" and check.max_concurrent_jobs == 1:
            continue  # the mutex
        if check.type == "eligibility_count" and check.min_eligible_clients <= bundle.job.orchestration.min_clients:
            # The first round refuses to start with fewer.
            found.append(f"the check {check.name!r} fails the run: {check.action_on_fail} is not carried out")
            continue
        found.append(f"the check {check.name!r} ({check.type}) is not made before a launch")
    told = schedule.notifications
    if told is not None:
        events = {"on_schedule": told.on_schedule, "on_start": told.on_start, "on_skip": told.on_skip}
        wanted = [name for name, said in events.items() if said and said.enabled and said.channels]
        found += [f"nobody is told {name}: runs tell of their end only" for name in wanted]
    if schedule.monitoring is not None and schedule.monitoring.alerts:
        found.append("alerts of the schedule are for your monitoring system; the metrics are there")
    return found


def _of_job(bundle: JobBundle) -> CronSpec | None:
    said = bundle.job.orchestration.schedule
    if said.type == "on_demand":
        return None
    if said.type == "cron":
        return _cron(said.cron_expression or "", "UTC", False, [], None)
    day = said.launch_day or "Sunday"
    hour, minute = _clock(said.launch_time)
    conditions = [_every_other_week(bundle, None, day)] if said.type == "bi_weekly" else []
    return _cron(f"{minute} {hour} * * {DAYS.index(day)}", "UTC", False, conditions, None)


def _cron(expression: str, zone: str, suspend: bool, conditions: list[str], stop: str | None) -> CronSpec:
    shortest = _shortest_interval_s(expression)
    if shortest >= _GUARDED_FROM_S and _sets_clocks(zone):
        # Clocks set back repeat a launch an hour later; clocks set forward bring launches that are three hours
        # apart to two. The guard lies between. Of closer launches the wait cannot tell which is which: they all run.
        last = "cronworkflow.lastScheduledTime"
        conditions = [f"({last} == nil || (now() - {last}).Seconds() > {_GUARD_S})", *conditions]
    when = "{{= " + " && ".join(conditions) + " }}" if conditions else None
    return CronSpec((expression,), zone, suspend, when, stop, min(_DEADLINE_S, shortest))


@cache
def _shortest_interval_s(expression: str) -> int:
    """Seconds between the closest two of the next launches; a day where it fires only once."""
    from cronsim import CronSim

    fires = list(islice(CronSim(expression, _START), 100))
    return int(min(((b - a).total_seconds() for a, b in pairwise(fires)), default=86_400))


def _sets_clocks(zone: str) -> bool:
    """Whether the distance to UTC changes within two years; said of a zone that this machine does not know, too."""
    try:
        local = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return zone != "UTC"
    return len({(_START + timedelta(weeks=week)).astimezone(local).utcoffset() for week in range(105)}) > 1


def _periodic(periodic: PeriodicSchedule) -> str:
    hour, minute = _clock(periodic.time)
    weekday = DAYS.index(periodic.day_of_week or "Sunday")
    return {
        "hourly": f"{minute} * * * *",
        "daily": f"{minute} {hour} * * *",
        "weekly": f"{minute} {hour} * * {weekday}",
        "bi_weekly": f"{minute} {hour} * * {weekday}",
        "monthly": f"{minute} {hour} {periodic.day_of_month or 1} * *",
    }[periodic.interval]


def _clock(time: str | None) -> tuple[int, int]:
    hour, minute = (time or "00:00")[:5].split(":")
    return int(hour), int(minute)


def _every_other_week(bundle: JobBundle, schedule: Schedule | None, day: str) -> str:
    """Weeks are counted from the first launch day on or after the day on which the spec was written."""
    written = (schedule.schedule_metadata.created_at if schedule else None) or bundle.job.metadata.created_at
    if written is None:
        at: Trail = ("schedule_metadata", "created_at") if schedule else ("job_metadata", "created_at")
        message = "is missing: it says which of two weeks a bi_weekly launch is in"
        raise SpecError([_problem(bundle, "schedule" if schedule else "job", at, message)])
    first = parse_timestamp(written).astimezone(UTC)
    ahead = (DAYS.index(day) - (first.isoweekday() % 7)) % 7
    anchor = first.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=ahead)
    since = f"date('{anchor:%Y-%m-%dT%H:%M:%SZ}')"
    return f"now() >= {since} && int((now() - {since}).Hours() / 168) % 2 == 0"


def _problem(bundle: JobBundle, kind: str, at: Trail, message: str) -> Problem:
    return bundle.problem(kind, at, "error", message, "write a date and time such as 2026-11-22T00:00:00Z")


def _date(timestamp: str) -> str:
    return f"date('{parse_timestamp(timestamp).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}')"


def _not_in(period: BlackoutPeriod) -> str:
    return f"!(now() >= {_date(period.start)} && now() < {_date(period.end)})"


def _windows(windows: tuple[AllowedWindow, ...]) -> str:
    parts = [part for window in windows for part in _window(window)]
    return parts[0] if len(parts) == 1 else f"({' || '.join(parts)})"


def _window(window: AllowedWindow) -> Iterator[str]:
    """A window past midnight is an evening and the morning of the day after."""
    local = f"now().In(timezone('{window.timezone}'))"
    minute = f"{local}.Hour() * 60 + {local}.Minute()"
    start, end = (60 * hour + minute for hour, minute in map(_clock, (window.start_time, window.end_time)))
    if start < end:
        yield f"({_on(local, window.days)} && {minute} >= {start} && {minute} < {end})"
        return
    after = tuple(DAYS[(DAYS.index(day) + 1) % 7] for day in window.days)
    yield f"({_on(local, window.days)} && {minute} >= {start})"
    if end:
        yield f"({_on(local, after)} && {minute} < {end})"


def _on(local: str, days: tuple[str, ...]) -> str:
    return f"{local}.Weekday().String() in [{', '.join(repr(day) for day in days)}]"
