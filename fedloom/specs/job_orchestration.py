"""When a job runs, with which clients, and when a round counts."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fedloom.specs.base import Section
from fedloom.specs.fields import ClockTimeUtc, Count, Flag, Name, Natural, NotNegative, Positive, Rate, Weekday

ScheduleType = Literal["weekly", "bi_weekly", "on_demand", "cron"]
SelectionAlgorithm = Literal["random", "importance_sampling", "active_learning", "weighted_random", "poisson"]


class JobSchedule(Section):
    """When the job is launched."""

    type: ScheduleType = Field(description="Kind of schedule.")
    launch_day: Weekday | None = Field(None, description="Day of a weekly or bi_weekly launch.")
    launch_time: ClockTimeUtc | None = Field(None, description="Time of the launch as HH:MM, in UTC.")
    cron_expression: Name | None = Field(None, description="For type cron: minute hour day month weekday.")


class JobEligibility(Section):
    """Which clients may take part; a selector.yaml says more and is preferred."""

    min_data_samples: Count | None = Field(None, description="Fewest data samples.")
    min_flight_hours: NotNegative | None = Field(None, description="Fewest flight hours in all.")
    min_flight_hours_since_last_round: NotNegative | None = Field(
        None, description="Fewest flight hours since the client last took part."
    )
    no_open_ncrs: Flag = Field(False, description="Leave out clients with open non-conformance reports.")
    no_active_alerts: Flag = Field(False, description="Leave out clients with active alerts.")
    data_quality_threshold: Rate | None = Field(None, description="Lowest data quality score, 0 to 1.")
    hardware_health_check: Flag = Field(False, description="Admit only clients with healthy hardware.")
    where: Name | None = Field(None, description="An expression in CEL over the fleet's columns that must be true.")


class JobFairness(Section):
    """How evenly clients take part; a selector.yaml says more and is preferred."""

    stratify_by: tuple[Name, ...] = Field((), description="Fleet columns over which draws are spread evenly.")
    min_participation_per_quarter: Natural | None = Field(
        None, description="Times that each client should take part in a quarter."
    )


class ClientSelection(Section):
    """How the cohort of a round is drawn."""

    algorithm: SelectionAlgorithm = Field(description="How clients are drawn.")
    target_clients: Count | None = Field(None, description="Clients aimed at in each round.")
    eligibility_criteria: JobEligibility | None = Field(None, description="Which clients may take part.")
    fairness_policy: JobFairness | None = Field(None, description="How evenly clients take part.")


class RoundAggregation(Section):
    """When the updates of a round are combined, and with which weights."""

    weights: Literal["num_samples", "uniform", "custom"] = Field(
        "num_samples", description="What a client's update is weighted by."
    )
    weight_column: Name | None = Field(
        None, description="Weights custom: the column of the fleet that holds them, not negative."
    )
    over_provision: Rate | None = Field(
        None,
        description="Share of clients asked beyond the target, against dropouts; max_clients stays the limit.",
    )
    timeout: Count | None = Field(None, description="Minutes after which updates are no longer waited for.")
    min_quorum: Count | None = Field(None, description="Fewest updates with which a round counts.")
    staleness_threshold: Natural | None = Field(
        None, description="Rounds by which an update may be late and still count."
    )


class Timing(Section):
    """What starts the aggregation."""

    trigger: Literal["after_client_updates", "scheduled", "manual"] = Field(
        "after_client_updates", description="What starts the aggregation."
    )
    wait_for_min_clients: Flag = Field(True, description="Whether it waits for min_clients; if not, they do not count.")
    min_clients: Count | None = Field(None, description="Fewest updates waited for: below them a round does not count.")
    max_wait_time: Count | None = Field(None, description="Minutes that the clients of a shard have together.")


class Resources(Section):
    """What a step of the job gets."""

    cpu_cores: Positive | None = Field(None, description="CPU cores.")
    memory_gb: Positive | None = Field(None, description="Memory, in GB.")
    gpu: Flag = Field(False, description="Whether a GPU is needed.")
    timeout: Count | None = Field(None, description="Minutes after which a step is ended.")


class OrchestrationSpec(Section):
    """Schedule, clients and rounds."""

    schedule: JobSchedule = Field(description="When the job is launched.")
    client_selection: ClientSelection = Field(description="How the cohort of a round is drawn.")
    min_clients: Count = Field(description="Fewest clients with which a round starts.")
    max_clients: Count = Field(description="Most clients drawn for a round.")
    shard_size: Count = Field(16, description="Clients handled by one step; the fan-out of the DAG.")
    aggregation: RoundAggregation = Field(
        default_factory=RoundAggregation, description="When the updates of a round are combined."
    )
    timing: Timing | None = Field(None, description="What starts the aggregation.")
    resources: Resources | None = Field(None, description="What a step of the job gets.")

    @property
    def quorum(self) -> int:
        """Fewest updates with which a round counts; as many as timing waits for, if that is more."""
        asked = self.aggregation.min_quorum or self.min_clients
        if self.timing is None or not self.timing.wait_for_min_clients:
            return asked
        return max(asked, self.timing.min_clients or 0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_clients > self.max_clients:
            raise ValueError(f"min_clients ({self.min_clients}) is above max_clients ({self.max_clients})")
        return self
