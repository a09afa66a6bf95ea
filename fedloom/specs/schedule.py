"""The schedule: when a job is launched, what is checked before, and what bounds its execution."""

from functools import cache
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from fedloom.specs.base import Section, Semver
from fedloom.specs.fields import (
    AlertSeverity,
    Channel,
    ClockTimeUtc,
    Count,
    Duration,
    Flag,
    Name,
    Natural,
    NotNegative,
    Positive,
    Rate,
    Timestamp,
    Weekday,
    parse_duration,
    parse_timestamp,
)

ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
ActionOnFail = Literal["skip_round", "delay", "alert", "alert_and_retry", "queue"]


@cache
def _timezones() -> set[str]:
    import zoneinfo

    return zoneinfo.available_timezones()


def known_timezone(name: str) -> bool:
    """Whether there is such a time zone; a machine without a database of them cannot tell, and says yes."""
    return name == "UTC" or not _timezones() or name in _timezones()


def _timezone(name: str) -> str:
    if not known_timezone(name):
        raise ValueError(f"{name!r} is no time zone; use a name such as UTC or Europe/Paris")
    return name


Timezone = Annotated[str, AfterValidator(_timezone)]


class ScheduleMetadata(Section):
    """Who the schedule is."""

    schedule_id: Annotated[str, Field(pattern=r"^schedule-[a-z0-9-]+$")] = Field(
        description="Unique id, 'schedule-' and then lower-case letters, digits and hyphens."
    )
    name: Name = Field(description="Name shown to people.")
    description: str | None = Field(None, description="What the schedule is for.")
    version: Semver = Field(description="Semantic version of the schedule, e.g. 1.0.0.")
    created_at: Timestamp | None = Field(None, description="When it was written (RFC 3339).")
    job_ref: Name | None = Field(None, description="job_id of the job that is launched.")


class CronSchedule(Section):
    """Launch at the times of a cron expression."""

    expression: Name = Field(description="Minute, hour, day of month, month, day of week: '0 2 * * 0'.")
    timezone: Timezone = Field("UTC", description="Time zone of the expression, e.g. Europe/Paris.")
    enabled: Flag = Field(True, description="Whether the schedule launches anything.")
    start_date: Timestamp | None = Field(None, description="No launch before (RFC 3339).")
    end_date: Timestamp | None = Field(None, description="No launch after; null means without end.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _in_order(self.start_date, self.end_date, "start_date", "end_date")
        return self


class PeriodicSchedule(Section):
    """Launch at a fixed interval."""

    interval: Literal["hourly", "daily", "weekly", "bi_weekly", "monthly"] = Field(description="Time between launches.")
    day_of_week: Weekday | None = Field(None, description="Day of launch, for weekly and bi_weekly.")
    day_of_month: Annotated[int, Strict(), Field(ge=1, le=31)] | None = Field(
        None, description="Day of launch, for monthly."
    )
    time: ClockTimeUtc | None = Field(None, description="Time of launch, e.g. '02:00 UTC'.")


class TriggerEvent(Section):
    """An event that launches the job."""

    event_type: Literal["data_availability", "model_drift", "performance_degradation"] = Field(
        description="The kind of event."
    )
    condition: Name = Field(description="When it counts, e.g. 'drift_psi > 0.3'.")
    threshold: NotNegative | None = Field(None, description="The number that the condition refers to.")


class EventDrivenSchedule(Section):
    """Launch when something happens."""

    trigger_events: tuple[TriggerEvent, ...] = Field(min_length=1, description="Events; any one launches the job.")


class _Check(Section):
    name: Name = Field(description="Name shown to people.")
    action_on_fail: ActionOnFail = Field(description="What happens when the check fails.")


class EligibilityCountCheck(_Check):
    """Enough clients are eligible."""

    type: Literal["eligibility_count"] = Field(description="The kind of check.")
    min_eligible_clients: Count = Field(description="Fewest eligible clients.")


class DataQualityCheck(_Check):
    """The clients' data is good enough."""

    type: Literal["data_quality_check"] = Field(description="The kind of check.")
    min_quality_score: Rate = Field(description="Lowest mean data quality, 0 to 1.")


class InfrastructureCheck(_Check):
    """The services that the job needs are up."""

    type: Literal["infrastructure_health"] = Field(description="The kind of check.")
    required_services: tuple[Name, ...] = Field(min_length=1, description="Services that must be up.")


class RequiredResources(Section):
    """Resources that must be free."""

    cpu_cores: Positive | None = Field(None, description="CPU cores.")
    memory_gb: Positive | None = Field(None, description="Memory, in GB.")
    storage_gb: Positive | None = Field(None, description="Storage, in GB.")


class ResourceCheck(_Check):
    """Enough resources are free."""

    type: Literal["resource_check"] = Field(description="The kind of check.")
    required_resources: RequiredResources = Field(description="Resources that must be free.")


class ConcurrencyCheck(_Check):
    """Not too many jobs run."""

    type: Literal["concurrency_check"] = Field(description="The kind of check.")
    max_concurrent_jobs: Count = Field(description="Most jobs that may run, this one among them.")


Check = Annotated[
    EligibilityCountCheck | DataQualityCheck | InfrastructureCheck | ResourceCheck | ConcurrencyCheck,
    Field(discriminator="type"),
]


class PreExecutionChecks(Section):
    """What is checked before a launch."""

    enabled: Flag = Field(True, description="Whether the checks are made.")
    checks: tuple[Check, ...] = Field((), description="The checks, in order.")


class AllowedWindow(Section):
    """A time of the week in which the job may run; past midnight when end_time is not after start_time."""

    days: tuple[Weekday, ...] = Field(min_length=1, description="Days on which the window opens.")
    start_time: ClockTime = Field(description="When it opens, HH:MM.")
    end_time: ClockTime = Field(description="When it closes, HH:MM.")
    timezone: Timezone = Field("UTC", description="Time zone of the times.")

    @model_validator(mode="after")
    def _open(self) -> Self:
        if self.start_time == self.end_time:
            raise ValueError(f"start_time and end_time are both {self.start_time}: the window never opens")
        return self


class BlackoutPeriod(Section):
    """A time in which the job must not run."""

    name: Name = Field(description="Name of the period.")
    start: Timestamp = Field(description="When it begins (RFC 3339).")
    end: Timestamp = Field(description="When it ends (RFC 3339).")
    reason: str | None = Field(None, description="Why the job must not run.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _in_order(self.start, self.end, "start", "end")
        return self


class RetryPolicy(Section):
    """What happens after a failed execution."""

    enabled: Flag = Field(True, description="Whether a failed execution is tried again.")
    max_retries: Natural = Field(description="How many times it is tried again.")
    retry_delay: Duration | None = Field(None, description="Wait before the first retry, e.g. '30 minutes'.")
    backoff_multiplier: Annotated[float, Strict(), Field(ge=1)] = Field(
        1.0, description="Factor by which the wait grows with each retry."
    )


class ExecutionConstraints(Section):
    """When the job may run, and for how long."""

    allowed_windows: tuple[AllowedWindow, ...] = Field(
        (), description="Windows in which it may run; empty means always."
    )
    blackout_periods: tuple[BlackoutPeriod, ...] = Field((), description="When it must not run.")
    max_duration: Duration | None = Field(None, description="Longest execution, e.g. '8 hours'.")
    retry_policy: RetryPolicy | None = Field(None, description="What happens after a failure.")

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.max_duration is not None and not parse_duration(self.max_duration):
            raise ValueError("max_duration is zero")
        return self


class Notification(Section):
    """Who is told of an event, and what."""

    enabled: Flag = Field(True, description="Whether anybody is told.")
    channels: tuple[Channel, ...] = Field((), description="How they are told.")
    recipients: tuple[Name, ...] = Field((), description="Who is told.")
    severity: AlertSeverity | None = Field(None, description="How bad the event is.")
    message_template: str | None = Field(None, description="The message; {name} stands for a value.")


class Notifications(Section):
    """Messages about the job, by event."""

    on_schedule: Notification | None = Field(None, description="When a launch is planned.")
    on_start: Notification | None = Field(None, description="When the job starts.")
    on_completion: Notification | None = Field(None, description="When it ends well.")
    on_failure: Notification | None = Field(None, description="When it fails.")
    on_skip: Notification | None = Field(None, description="When a launch is skipped.")


class Compute(Section):
    """Processors and memory."""

    cpu_cores: Positive | None = Field(None, description="CPU cores.")
    memory_gb: Positive | None = Field(None, description="Memory, in GB.")
    gpu: Flag = Field(False, description="Whether a GPU is needed.")


class Storage(Section):
    """Space on disk."""

    workspace_gb: Positive | None = Field(None, description="Working space, in GB.")
    artifacts_gb: Positive | None = Field(None, description="Space for models and reports, in GB.")


class Network(Section):
    """Bandwidth."""

    bandwidth_mbps: Positive | None = Field(None, description="Bandwidth, in Mbit/s.")


class ResourceAllocation(Section):
    """What the job is given."""

    priority: Literal["low", "normal", "high", "critical"] = Field(
        "normal", description="Its priority among other jobs."
    )
    compute: Compute | None = Field(None, description="Processors and memory.")
    storage: Storage | None = Field(None, description="Space on disk.")
    network: Network | None = Field(None, description="Bandwidth.")


class ScheduleAlert(Section):
    """An alert about the schedule."""

    name: Name = Field(description="Name of the alert.")
    condition: Name = Field(description="When it is raised.")
    severity: AlertSeverity | None = Field(None, description="How bad it is.")
    channels: tuple[Channel, ...] = Field((), description="Where it is sent.")


class ScheduleMonitoring(Section):
    """What is recorded about executions."""

    track_schedule_adherence: Flag = Field(False, description="Record delays against the plan.")
    track_execution_duration: Flag = Field(False, description="Record how long executions take.")
    track_resource_usage: Flag = Field(False, description="Record the resources used.")
    alerts: tuple[ScheduleAlert, ...] = Field((), description="Alerts raised.")


class Schedule(Section):
    """A schedule: trigger, checks, constraints, notifications."""

    schedule_metadata: ScheduleMetadata = Field(description="Who the schedule is.")
    schedule_type: Literal["cron", "periodic", "on_demand", "event_driven"] = Field(
        description="What launches the job; the section of that name says the rest."
    )
    cron_schedule: CronSchedule | None = Field(None, description="For type cron.")
    periodic_schedule: PeriodicSchedule | None = Field(None, description="For type periodic.")
    event_driven_schedule: EventDrivenSchedule | None = Field(None, description="For type event_driven.")
    pre_execution_checks: PreExecutionChecks | None = Field(None, description="Checks before a launch.")
    execution_constraints: ExecutionConstraints | None = Field(None, description="When it may run, how long.")
    notifications: Notifications | None = Field(None, description="Messages, by event.")
    resource_allocation: ResourceAllocation | None = Field(None, description="What the job is given.")
    monitoring: ScheduleMonitoring | None = Field(None, description="What is recorded.")

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        sections = {
            "cron": self.cron_schedule,
            "periodic": self.periodic_schedule,
            "event_driven": self.event_driven_schedule,
        }
        if self.schedule_type in sections and sections[self.schedule_type] is None:
            raise ValueError(f"schedule_type is {self.schedule_type}, but {self.schedule_type}_schedule is missing")
        return self


def _in_order(start: str | None, end: str | None, start_name: str, end_name: str) -> None:
    if start is not None and end is not None and parse_timestamp(end) <= parse_timestamp(start):
        raise ValueError(f"{end_name} ({end}) is not after {start_name} ({start})")
