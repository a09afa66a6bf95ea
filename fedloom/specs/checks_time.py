"""When a job says it runs, checked against its schedule and the calendar."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from fedloom.specs.fields import parse_timestamp
from fedloom.specs.problems import Problem

if TYPE_CHECKING:
    from fedloom.specs.bundle import JobBundle
    from fedloom.specs.schedule import AllowedWindow, Schedule

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_START = datetime(2024, 1, 1, tzinfo=UTC)
"""From where launches are counted when the schedule has no start: checks do not look at the clock."""
_LAUNCHES = 400


def cron_expressions(bundle: JobBundle) -> Iterator[Problem]:
    """Cron expressions parse and fire at least once."""
    job = bundle.job.orchestration.schedule
    at = ("orchestration_config", "schedule", "cron_expression")
    if job.type == "cron" and job.cron_expression is None:
        message = "is missing: a schedule of type cron needs it"
        yield bundle.problem("job", at, "error", message, "for example '0 2 * * 0'")
    elif job.type != "cron" and job.cron_expression is not None:
        yield bundle.problem(
            "job", at, "error", f"is given, but the schedule's type is {job.type}", "write type: cron, or remove it"
        )
    if job.cron_expression is not None and (trouble := cron_trouble(job.cron_expression)):
        yield bundle.problem("job", at, "error", trouble, _CRON_HINT)
    cron = bundle.schedule.cron_schedule if bundle.schedule else None
    if cron is not None and (trouble := cron_trouble(cron.expression)):
        yield bundle.problem("schedule", ("cron_schedule", "expression"), "error", trouble, _CRON_HINT)


_CRON_HINT = "five fields: minute hour day-of-month month day-of-week, for example '0 2 * * 0'"


def cron_trouble(expression: str) -> str | None:
    """What is wrong with a cron expression, None if nothing is."""
    fields = len(expression.split())
    if fields != 5:
        return f"'{expression}' is no cron expression: it has {fields} fields instead of five"
    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(expression, _START))
    except CronSimError as error:
        return f"'{expression}' is no cron expression: {str(error).lower()}"
    except StopIteration:
        return f"'{expression}' never fires"
    return None


def schedules_agree(bundle: JobBundle) -> Iterator[Problem]:
    """schedule.yaml launches the job when the job says."""
    job, schedule = bundle.job.orchestration.schedule, bundle.schedule
    if schedule is None:
        return
    if schedule.schedule_type == "on_demand" and job.type != "on_demand":
        yield bundle.problem(
            "schedule", ("schedule_type",), "warning", f"is on_demand, but the job is launched {job.type}"
        )
    cron = schedule.cron_schedule if schedule.schedule_type == "cron" else None
    if cron is None or cron_trouble(cron.expression):
        return
    at = ("cron_schedule", "expression")
    if job.type == "on_demand":
        yield bundle.problem("schedule", at, "warning", "launches the job by the clock, but the job is on_demand")
    if job.type == "cron" and job.cron_expression != cron.expression:
        yield bundle.problem(
            "schedule", at, "warning", f"is '{cron.expression}', but the job says '{job.cron_expression}'"
        )
    if job.type != "weekly":
        return
    fires = list(islice(_launches(schedule), 5))
    if any(later - earlier != timedelta(days=7) for earlier, later in pairwise(fires)):
        yield bundle.problem("schedule", at, "warning", f"'{cron.expression}' is not weekly, but the job is")
    elif fires and job.launch_day is not None and _DAYS[fires[0].weekday()] != job.launch_day:
        day = _DAYS[fires[0].weekday()]
        yield bundle.problem("schedule", at, "warning", f"fires on {day}, but the job says {job.launch_day}")
    elif fires and job.launch_time is not None and cron.timezone == "UTC":
        clock = f"{fires[0]:%H:%M}"
        if clock != job.launch_time[:5]:
            yield bundle.problem("schedule", at, "warning", f"fires at {clock}, but the job says {job.launch_time}")


def launch_is_possible(bundle: JobBundle) -> Iterator[Problem]:
    """Some launch falls into an allowed window and out of every blackout."""
    schedule = bundle.schedule
    if schedule is None or schedule.schedule_type != "cron" or schedule.cron_schedule is None:
        return
    if schedule.execution_constraints is None or cron_trouble(schedule.cron_schedule.expression):
        return
    windows = schedule.execution_constraints.allowed_windows
    blackouts = [
        (parse_timestamp(period.start), parse_timestamp(period.end))
        for period in schedule.execution_constraints.blackout_periods
    ]
    expression = schedule.cron_schedule.expression
    fired = inside = False
    for at in _launches(schedule):
        fired = True
        if windows and not any(_inside(at, window) for window in windows):
            continue
        inside = True
        if not any(start <= at < end for start, end in blackouts):
            return
    if fired and not inside:
        yield bundle.problem(
            "schedule",
            ("execution_constraints", "allowed_windows"),
            "warning",
            f"'{expression}' never fires inside an allowed window: the job would never run",
        )
    elif fired:
        yield bundle.problem(
            "schedule",
            ("execution_constraints", "blackout_periods"),
            "warning",
            f"every launch of '{expression}' falls into a blackout period",
        )


def _launches(schedule: Schedule) -> Iterator[datetime]:
    """The first launches of a cron schedule, in its own time zone."""
    from cronsim import CronSim

    cron = schedule.cron_schedule
    if cron is None:
        return
    start = parse_timestamp(cron.start_date) if cron.start_date else _START
    end = parse_timestamp(cron.end_date) if cron.end_date else None
    for at in islice(CronSim(cron.expression, start.astimezone(_zone(cron.timezone))), _LAUNCHES):
        if end is not None and at > end:
            return
        yield at


def _inside(at: datetime, window: AllowedWindow) -> bool:
    local = at.astimezone(_zone(window.timezone))
    clock, today = f"{local:%H:%M}", _DAYS[local.weekday()]
    if window.start_time <= window.end_time:
        return today in window.days and window.start_time <= clock < window.end_time
    yesterday = _DAYS[local.weekday() - 1]
    return (today in window.days and clock >= window.start_time) or (
        yesterday in window.days and clock < window.end_time
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # No time zone database on this machine.
        return ZoneInfo("UTC")


TIME_CHECKS = (cron_expressions, schedules_agree, launch_is_possible)
