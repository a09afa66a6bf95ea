"""The rollout policy: in which phases a released model reaches the fleet, and when it is taken back."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from fedloom.specs.base import Section, Semver
from fedloom.specs.fields import (
    AlertSeverity,
    Channel,
    Comparison,
    Count,
    Email,
    Flag,
    Name,
    Natural,
    Number,
    Timestamp,
    parse_duration,
)


def _duration(text: str) -> str:
    parse_duration(text)
    return text


_Checked = AfterValidator(_duration)
PhaseDuration = Annotated[str, Field(pattern=r"^\d+\s+(hours?|days?|weeks?)$"), _Checked]
MonitoringPeriod = Annotated[str, Field(pattern=r"^\d+\s+(minutes?|hours?|days?)$"), _Checked]
Window = Annotated[str, Field(pattern=r"^\d+\s+(minutes?|hours?)$"), _Checked]
Interval = Annotated[str, Field(pattern=r"^\d+\s+(seconds?|minutes?)$"), _Checked]
ApprovalTimeout = Annotated[str, Field(pattern=r"^\d+\s+(hours?|days?)$"), _Checked]
RolloutMetric = Literal[
    "accuracy",
    "auc",
    "precision",
    "recall",
    "f1_score",
    "latency_p50",
    "latency_p95",
    "latency_p99",
    "error_rate",
    "drift_psi",
    "false_positive_rate",
    "false_negative_rate",
]


class RolloutMetadata(Section):
    """Who the rollout policy is."""

    rollout_id: Annotated[str, Field(pattern=r"^rollout-[a-z0-9-]+$")] = Field(
        description="Unique id, 'rollout-' and then lower-case letters, digits and hyphens."
    )
    name: Name = Field(description="Name shown to people.")
    description: str | None = Field(None, description="What the policy is for.")
    version: Semver = Field(description="Semantic version of the policy, e.g. 1.0.0.")
    created_at: Timestamp | None = Field(None, description="When it was written (RFC 3339).")
    job_ref: Name | None = Field(None, description="job_id of the job whose model is rolled out.")
    model_version: Name | None = Field(None, description="Version of the model that is rolled out.")


class SelectionCriteria(Section):
    """Which clients a phase reaches."""

    aircraft_types: tuple[str, ...] = Field((), description="Aircraft types; empty means all.")
    geographic_regions: tuple[str, ...] = Field((), description="Regions; empty means all.")
    operators: tuple[str, ...] = Field((), description="Operators; empty means all.")
    diversity_required: Flag = Field(False, description="Spread the phase over different kinds of clients.")


class SuccessCriterion(Section):
    """What must hold before the next phase."""

    metric: RolloutMetric = Field(description="The metric watched.")
    threshold: Number = Field(description="The value that it is compared with.")
    comparison: Comparison | None = Field(
        None, description="How it is compared; by default in the metric's own direction."
    )


class Phase(Section):
    """One step of the rollout."""

    phase_name: Name = Field(description="Name of the phase, e.g. Canary.")
    phase_number: Count | None = Field(None, description="Its place in the list, from 1.")
    target_percentage: Annotated[float, Strict(), Field(ge=0, le=100)] = Field(
        description="Share of the fleet that has the model at the end of the phase, in percent."
    )
    target_count: Count | None = Field(None, description="Number of clients; takes precedence over target_percentage.")
    duration: PhaseDuration | None = Field(None, description="How long the phase lasts, e.g. '24 hours'.")
    specific_clients: tuple[Name, ...] = Field((), description="Ids of the clients of this phase.")
    selection_criteria: SelectionCriteria | None = Field(None, description="Which clients are reached.")
    success_criteria: tuple[SuccessCriterion, ...] = Field(
        (), description="What must hold before the next phase begins."
    )
    monitoring_period: MonitoringPeriod | None = Field(
        None, description="How long the model is watched before the criteria are judged."
    )
    auto_proceed: Flag = Field(False, description="Go on by itself when the criteria hold.")
    require_manual_approval: Flag = Field(False, description="Wait for a person before going on.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.specific_clients)) < len(self.specific_clients):
            raise ValueError("specific_clients names a client twice")
        if self.target_count is not None and len(self.specific_clients) > self.target_count:
            raise ValueError(
                f"specific_clients names {len(self.specific_clients)} clients, target_count is {self.target_count}"
            )
        return self


class RollbackCondition(Section):
    """What takes the model back."""

    metric: Name = Field(description="The metric watched.")
    threshold: Number = Field(description="The value that it is compared with.")
    comparison: Literal["greater_than", "less_than", "equal"] = Field(description="How it is compared.")
    window: Window | None = Field(None, description="Time over which it is measured, e.g. '30 minutes'.")


class RollbackPolicy(Section):
    """When and how the model is taken back."""

    auto_rollback: Flag = Field(description="Take the model back without waiting for a person.")
    conditions: tuple[RollbackCondition, ...] = Field(description="What triggers it; any one is enough.")
    rollback_target: Literal["previous_version", "baseline", "safe_version"] | None = Field(
        None, description="The model put in its place."
    )
    notification_channels: tuple[Channel, ...] = Field((), description="Who is told.")
    max_auto_rollbacks: Natural | None = Field(
        None, description="Rollbacks made automatically before a person must decide."
    )

    @model_validator(mode="after")
    def _armed(self) -> Self:
        if self.auto_rollback and not self.conditions:
            raise ValueError("auto_rollback is true, but there is no condition that triggers it")
        return self


class PreRolloutCheck(Section):
    """A check before the first phase."""

    check_name: Name | None = Field(None, description="Name shown to people.")
    check_type: (
        Literal[
            "schema_validation",
            "performance_benchmark",
            "safety_review",
            "security_scan",
            "compliance_check",
        ]
        | None
    ) = Field(None, description="What is checked.")
    required: Flag = Field(True, description="Whether the check must be made.")
    blocking: Flag = Field(True, description="Whether a failed check stops the rollout.")


class PerPhaseCheck(Section):
    """A check after one phase or after each."""

    check_name: Name | None = Field(None, description="Name shown to people.")
    run_after: Annotated[str, Field(pattern=r"^(each_phase|phase_[1-9]\d*)$")] | None = Field(
        None, description="When: each_phase, or phase_N."
    )
    required: Flag = Field(True, description="Whether the check must be made.")


class SafetyGates(Section):
    """Checks around the rollout."""

    enabled: Flag = Field(True, description="Whether the checks are made.")
    pre_rollout_checks: tuple[PreRolloutCheck, ...] = Field((), description="Checks before the first phase.")
    per_phase_checks: tuple[PerPhaseCheck, ...] = Field((), description="Checks between phases.")


class RolloutAlert(Section):
    """An alert while the model is rolled out."""

    name: Name | None = Field(None, description="Name of the alert.")
    condition: Name | None = Field(None, description="When it is raised, e.g. 'auc < 0.85'.")
    severity: AlertSeverity | None = Field(None, description="How bad it is.")
    channels: tuple[Name, ...] = Field((), description="Where it is sent.")


class RolloutMonitoring(Section):
    """How the rollout is watched."""

    dashboards: tuple[str, ...] = Field((), description="Dashboards, by URL or name.")
    metrics_collection_interval: Interval | None = Field(
        None, description="How often metrics are read, e.g. '5 minutes'."
    )
    alerts: tuple[RolloutAlert, ...] = Field((), description="Alerts raised.")
    real_time_tracking: Flag = Field(False, description="Follow the rollout in real time.")


class Approver(Section):
    """A person who agrees to phases."""

    role: Name | None = Field(None, description="The approver's role.")
    email: Email | None = Field(None, description="Where the approver is reached.")
    required_for_phases: tuple[Count, ...] = Field((), description="Numbers of the phases to agree to.")


class ApprovalWorkflow(Section):
    """Who must agree, and by when."""

    enabled: Flag = Field(False, description="Whether people must agree.")
    approvers: tuple[Approver, ...] = Field((), description="Who agrees.")
    approval_timeout: ApprovalTimeout | None = Field(None, description="Time for a decision, e.g. '24 hours'.")
    require_all_approvers: Flag = Field(True, description="Whether all must agree, or one is enough.")


class RolloutCompliance(Section):
    """What must be shown afterwards."""

    audit_trail: Flag = Field(True, description="Record every decision of the rollout.")
    certification_required: Flag = Field(False, description="Certification must be given.")
    ccb_approval_required: Flag = Field(False, description="The configuration control board must agree.")
    mal_fe_approval_required: Flag = Field(False, description="The fleet experiments policy must agree.")


class Rollout(Section):
    """A rollout policy: phases, rollback, gates, approvals."""

    rollout_metadata: RolloutMetadata = Field(description="Who the policy is.")
    strategy: Literal["canary", "blue_green", "progressive", "immediate"] = Field(
        description="How the model reaches the fleet."
    )
    phases: tuple[Phase, ...] = Field(min_length=1, description="The phases, in order.")
    rollback_policy: RollbackPolicy | None = Field(None, description="When the model is taken back.")
    safety_gates: SafetyGates | None = Field(None, description="Checks around the rollout.")
    monitoring: RolloutMonitoring | None = Field(None, description="How the rollout is watched.")
    approval_workflow: ApprovalWorkflow | None = Field(None, description="Who must agree.")
    compliance: RolloutCompliance | None = Field(None, description="What must be shown afterwards.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        reached = 0.0
        for place, phase in enumerate(self.phases, start=1):
            if phase.phase_number not in (None, place):
                raise ValueError(
                    f"phase {phase.phase_name!r} has phase_number {phase.phase_number}, "
                    f"but is number {place} in the list"
                )
            if phase.target_percentage < reached:
                raise ValueError(
                    f"phase {phase.phase_name!r} goes back from {reached:g} % to "
                    f"{phase.target_percentage:g} % of the fleet"
                )
            reached = phase.target_percentage
        return self

    @model_validator(mode="after")
    def _phases_named_exist(self) -> Self:
        named = [
            (f"approver {approver.role or approver.email!r}", number)
            for approver in (self.approval_workflow.approvers if self.approval_workflow else ())
            for number in approver.required_for_phases
        ]
        for check in self.safety_gates.per_phase_checks if self.safety_gates else ():
            if match := re.fullmatch(r"phase_(\d+)", check.run_after or ""):
                named.append((f"check {check.check_name!r}", int(match[1])))
        for who, number in named:
            if number > len(self.phases):
                raise ValueError(f"{who} is for phase {number}, but there are {len(self.phases)} phases")
        return self
