"""The documents beside a data contract: privacy policy, constraints, map of personal data, service levels."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from fedloom.specs.base import FreeForm, Section, Semver
from fedloom.specs.fields import (
    Count,
    Date,
    DpMechanism,
    Flag,
    Name,
    NotNegative,
    Number,
    Positive,
    Priority,
    Rate,
    Scalar,
)

Action = Literal["REJECT", "ALERT", "WARNING"]


class RelatedDocument(Section):
    """A document that belongs to this one."""

    path: Name = Field(description="Where it lies.")
    description: str | None = Field(None, description="What it says.")


class Change(Section):
    """One entry of a change history."""

    version: Semver = Field(description="Version that the change made.")
    date: Date = Field(description="Day of the change.")
    author: str | None = Field(None, description="Who made it.")
    changes: str | None = Field(None, description="What was changed.")


class _Companion(Section):
    related_documents: tuple[RelatedDocument, ...] = Field((), description="Documents that belong to it.")
    change_history: tuple[Change, ...] = Field((), description="Past changes.")


class DpMetadata(Section):
    """Who the privacy policy is."""

    version: Semver = Field(description="Semantic version of the policy.")
    owner: str | None = Field(None, description="Who answers for it.")
    mechanism: DpMechanism | None = Field(None, description="The mechanism.")
    last_reviewed: Date | None = Field(None, description="Day of the last review.")


class BudgetAllocation(Section):
    """How the budget is spread over rounds."""

    per_round: Positive | None = Field(None, description="Epsilon of one round.")
    total_rounds: Count | None = Field(None, description="Most rounds.")
    total_budget: Positive | None = Field(None, description="Epsilon of all rounds together.")


class PrivacyBudget(Section):
    """The (epsilon, delta) that may be spent."""

    epsilon: Positive = Field(description="Largest epsilon.")
    delta: Annotated[Rate, Field(lt=1)] = Field(description="Largest delta.")
    composition: FreeForm | None = Field(None, description="How loss adds up (kept for people).")
    budget_allocation: BudgetAllocation | None = Field(None, description="How it is spread over rounds.")
    exhaustion_policy: FreeForm | None = Field(None, description="What happens at its end (for people).")


class GradientClipping(Section):
    """Bound on the norm of gradients."""

    max_norm: Positive = Field(description="Largest L2 norm.")
    description: str | None = Field(None, description="What it does.")
    justification: str | None = Field(None, description="Why this value.")


class NoiseAddition(Section):
    """Noise on clipped gradients."""

    mechanism: Name = Field(description="Distribution of the noise, e.g. Gaussian.")
    noise_multiplier: NotNegative = Field(description="Standard deviation of the noise over the clip norm.")
    description: str | None = Field(None, description="What it does.")
    calibration: str | None = Field(None, description="How it was chosen.")


class LotSize(Section):
    """Samples in one gradient step."""

    value: Count = Field(description="Samples in one step.")
    description: str | None = Field(None, description="What it does.")
    justification: str | None = Field(None, description="Why this value.")


class DpSgd(Section):
    """Settings of DP-SGD."""

    enabled: Flag = Field(description="Whether DP-SGD is demanded.")
    gradient_clipping: GradientClipping | None = Field(None, description="Bound on gradients.")
    noise_addition: NoiseAddition | None = Field(None, description="Noise on gradients.")
    lot_size: LotSize | None = Field(None, description="Samples in one step.")
    iterations_per_epoch: FreeForm | None = Field(None, description="Steps of one epoch (for people).")


class DpPolicy(_Companion):
    """dp_policy.yaml: the differential privacy that use of the data demands."""

    dp_metadata: DpMetadata = Field(description="Who the policy is.")
    privacy_budget: PrivacyBudget = Field(description="What may be spent.")
    dp_sgd: DpSgd | None = Field(None, description="Settings of DP-SGD.")
    privacy_accounting: FreeForm | None = Field(None, description="How loss is counted (kept for people).")
    client_side: FreeForm | None = Field(None, description="What clients enforce (kept for people).")
    per_example_guarantee: FreeForm | None = Field(None, description="What it means (kept for people).")
    privacy_accuracy_tradeoff: FreeForm | None = Field(None, description="What it costs (for people).")
    threat_model: FreeForm | None = Field(None, description="Against whom (kept for people).")
    sensitivity_analysis: FreeForm | None = Field(None, description="Sensitivity (kept for people).")
    validation: FreeForm | None = Field(None, description="How it is tested (kept for people).")
    regulatory_compliance: FreeForm | None = Field(None, description="Law (kept for people).")
    emergency_procedures: FreeForm | None = Field(None, description="What to do (kept for people).")
    references: FreeForm | None = Field(None, description="Papers and standards (kept for people).")


class ConstraintsMetadata(Section):
    """Who the constraints are."""

    version: Semver = Field(description="Semantic version of the constraints.")
    contract_id: Name | None = Field(None, description="The contract that they belong to.")
    owner: str | None = Field(None, description="Who answers for them.")
    description: str | None = Field(None, description="What they are for.")


class RangeConstraint(Section):
    """Bounds on the values of a signal."""

    signal: Name = Field(description="The signal.")
    description: str | None = Field(None, description="What it is.")
    unit: str | None = Field(None, description="Unit of the bounds.")
    min: Number | None = Field(None, description="Lowest value.")
    max: Number | None = Field(None, description="Highest value.")
    physical_justification: str | None = Field(None, description="Why these bounds.")
    action_below: Action | None = Field(None, description="What happens to a value below min.")
    action_above: Action | None = Field(None, description="What happens to a value above max.")
    alert_priority: Priority | None = Field(None, description="How urgent an alert is.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"signal {self.signal}: min ({self.min:g}) is above max ({self.max:g})")
        return self


class RateConstraint(Section):
    """Bound on how fast a signal changes."""

    signal: Name = Field(description="The signal.")
    description: str | None = Field(None, description="What it is.")
    max_delta: Positive = Field(description="Largest change within the window.")
    unit: str | None = Field(None, description="Unit of the change.")
    window: Positive = Field(1.0, description="Length of the window, in seconds.")
    physical_justification: str | None = Field(None, description="Why this bound.")
    action_exceed: Action | None = Field(None, description="What happens when it is exceeded.")
    alert_priority: Priority | None = Field(None, description="How urgent an alert is.")


class ConsistencyConstraint(Section):
    """A relation between signals."""

    name: Name = Field(description="Name of the relation.")
    description: str | None = Field(None, description="What it says.")
    signals: tuple[Name, ...] = Field(description="The signals related.")
    condition: Name = Field(description="The relation.")
    physical_justification: str | None = Field(None, description="Why it holds.")
    action_fail: Action | None = Field(None, description="What happens when it does not hold.")
    alert_priority: Priority | None = Field(None, description="How urgent an alert is.")


class CompletenessConstraint(Section):
    """Bound on missing values."""

    scope: Name = Field(description="What is counted, e.g. per_signal_per_flight.")
    max_missing_rate: Rate | None = Field(None, description="Largest share of missing values, 0 to 1.")
    window: str | None = Field(None, description="Time over which it is counted.")
    fields: tuple[Name, ...] = Field((), description="Fields that must be there.")
    action_exceed: Action | None = Field(None, description="What happens when too much is missing.")
    action_missing: Action | None = Field(None, description="What happens when a field is missing.")
    alert_priority: Priority | None = Field(None, description="How urgent an alert is.")


class TemporalConstraint(Section):
    """A rule for timestamps."""

    constraint: Name = Field(description="The rule.")
    description: str | None = Field(None, description="What it says.")
    max_future_offset: NotNegative | None = Field(None, description="Clock skew allowed, in seconds.")
    max_age: NotNegative | None = Field(None, description="Greatest age allowed, in seconds.")
    action_fail: Action | None = Field(None, description="What happens when it does not hold.")
    alert_priority: Priority | None = Field(None, description="How urgent an alert is.")


class StatisticalConstraint(Section):
    """A statistical test of values."""

    method: Name = Field(description="The test, e.g. 3_sigma_rule.")
    description: str | None = Field(None, description="What it does.")
    signals: Name | tuple[Name, ...] = Field(description="The signals, or a word such as all_numeric.")
    window: str | None = Field(None, description="Time over which it looks.")
    action_flag: Action | None = Field(None, description="What happens to a value that it flags.")
    alert_priority: Priority | None = Field(None, description="How urgent an alert is.")


class ActionDefinition(Section):
    """What an action means."""

    description: str | None = Field(None, description="What is done.")
    log: Flag = Field(False, description="Whether it is logged.")
    alert: Flag = Field(False, description="Whether an alert is raised.")
    quarantine: Flag = Field(False, description="Whether the data is set aside.")
    quality_flag: Annotated[int, Field(strict=True)] | None = Field(
        None, description="Quality flag given to the data; null when it is not kept."
    )


class Constraints(_Companion):
    """constraints.yaml: what plausible data is."""

    constraints_metadata: ConstraintsMetadata = Field(description="Who the constraints are.")
    range_constraints: tuple[RangeConstraint, ...] = Field((), description="Bounds on values.")
    rate_of_change_constraints: tuple[RateConstraint, ...] = Field((), description="Bounds on changes.")
    consistency_constraints: tuple[ConsistencyConstraint, ...] = Field((), description="Relations between signals.")
    completeness_constraints: tuple[CompletenessConstraint, ...] = Field((), description="Bounds on missing values.")
    temporal_constraints: tuple[TemporalConstraint, ...] = Field((), description="Rules for timestamps.")
    statistical_constraints: tuple[StatisticalConstraint, ...] = Field((), description="Statistical tests.")
    action_definitions: dict[Action, ActionDefinition] = Field(
        default_factory=dict, description="What the actions mean."
    )
    reporting: FreeForm | None = Field(None, description="How violations are reported (kept for people).")


class PiiMetadata(Section):
    """Who the map of personal data is."""

    version: Semver = Field(description="Semantic version of the map.")
    owner: str | None = Field(None, description="Who answers for it.")
    gdpr_compliance: Flag | None = Field(None, description="Whether it claims to meet the GDPR.")
    last_reviewed: Date | None = Field(None, description="Day of the last review.")


class PiiField(Section):
    """A field with personal data."""

    field_name: Name = Field(description="The field.")
    pii_type: Literal["direct_identifier", "indirect_identifier", "pseudonym", "location_data"] = Field(
        description="What kind of personal data it is."
    )
    sensitivity: Priority = Field(description="How sensitive it is.")
    description: str | None = Field(None, description="What it holds.")
    present_in_contract: Flag = Field(description="Whether the contract's data has the field.")
    action: Literal["MUST_PSEUDONYMIZE", "ALREADY_PSEUDONYMIZED", "MUST_EXCLUDE", "MUST_EXCLUDE_OR_COARSEN"] = Field(
        description="What must be done with it."
    )

    @model_validator(mode="after")
    def _kept_out(self) -> Self:
        if self.present_in_contract and self.action == "MUST_EXCLUDE":
            raise ValueError(f"{self.field_name} is MUST_EXCLUDE, but present_in_contract is true")
        return self


class PiiMap(_Companion):
    """pii_map.yaml: which fields hold personal data, and what is done with them."""

    pii_metadata: PiiMetadata = Field(description="Who the map is.")
    pii_fields: tuple[PiiField, ...] = Field(description="Fields with personal data.")
    non_pii_fields: tuple[Name, ...] = Field((), description="Fields without personal data.")
    pseudonymization: FreeForm | None = Field(None, description="How ids are replaced (kept for people).")
    anonymization: tuple[FreeForm, ...] = Field((), description="Techniques used (kept for people).")
    data_minimization: FreeForm | None = Field(None, description="What is left out (kept for people).")
    retention: FreeForm | None = Field(None, description="How long data is kept (kept for people).")
    gdpr_rights: FreeForm | None = Field(None, description="Rights of people (kept for people).")
    privacy_impact_assessment: FreeForm | None = Field(None, description="Risks (kept for people).")
    compliance_monitoring: FreeForm | None = Field(None, description="Checks made (kept for people).")
    legal_basis: FreeForm | None = Field(None, description="Legal basis (kept for people).")
    data_protection: FreeForm | None = Field(None, description="Whom to ask (kept for people).")

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        both = sorted({field.field_name for field in self.pii_fields} & set(self.non_pii_fields))
        if both:
            raise ValueError(f"in pii_fields and in non_pii_fields: {', '.join(both)}")
        return self


class SlaMetadata(Section):
    """Who the service levels are."""

    version: Semver = Field(description="Semantic version of the service levels.")
    owner: str | None = Field(None, description="Who answers for them.")
    contract_id: Name | None = Field(None, description="The contract that they belong to.")
    effective_date: Date | None = Field(None, description="Day from which they hold.")
    review_period: str | None = Field(None, description="How often they are reviewed.")


class ServiceLevel(Section):
    """A target that is measured; what else is said about it is kept for people."""

    model_config = ConfigDict(extra="allow")

    target: Scalar = Field(description="The target, e.g. '99.5%'.")


class Slas(_Companion):
    """slas.yaml: the service levels of the data stream."""

    sla_metadata: SlaMetadata = Field(description="Who the service levels are.")
    availability: ServiceLevel | None = Field(None, description="Availability.")
    latency: FreeForm | None = Field(None, description="Latency (kept for people).")
    data_quality: FreeForm | None = Field(None, description="Data quality (kept for people).")
    throughput: ServiceLevel | None = Field(None, description="Throughput.")
    freshness: ServiceLevel | None = Field(None, description="Age of data when it can be used.")
    retention: FreeForm | None = Field(None, description="How long data is kept (kept for people).")
    error_rate: FreeForm | None = Field(None, description="Errors (kept for people).")
    support: FreeForm | None = Field(None, description="Where help is found (kept for people).")
    monitoring: FreeForm | None = Field(None, description="How levels are watched (kept for people).")
    review: FreeForm | None = Field(None, description="How levels are reviewed (kept for people).")
