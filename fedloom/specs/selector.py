"""The selector: which clients of a fleet may take part, and how a cohort is drawn from them."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from fedloom.specs.base import Section, Semver
from fedloom.specs.fields import Count, Flag, Name, Natural, NotNegative, Rate, Scalar, Timestamp

CustomValue = StrictBool | StrictInt | StrictFloat | str | tuple[Scalar, ...]
# Sums and products of weights are float64: larger ones could overflow, and then nobody would be drawn.
Weight = Annotated[NotNegative, Field(le=1e6)]
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
Dimension = Literal["aircraft_type", "aircraft_age", "flight_phase", "geographic_region", "operator"]


class SelectorMetadata(Section):
    """Who the selector is."""

    selector_id: Annotated[str, Field(pattern=r"^selector-[a-z0-9-]+$")] = Field(
        description="Unique id, 'selector-' and then lower-case letters, digits and hyphens."
    )
    name: Name = Field(description="Name shown to people.")
    description: str | None = Field(None, description="What the selector is for.")
    version: Semver = Field(description="Semantic version of the selector, e.g. 1.0.0.")
    created_at: Timestamp | None = Field(None, description="When it was written (RFC 3339).")


class AgeRange(Section):
    """Bounds on the age of an aircraft, in years."""

    min_years: NotNegative | None = Field(None, description="Youngest age admitted, in years.")
    max_years: NotNegative | None = Field(None, description="Oldest age admitted, in years.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_years is not None and self.max_years is not None and self.min_years > self.max_years:
            raise ValueError(f"min_years ({self.min_years:g}) is above max_years ({self.max_years:g})")
        return self


class EligibilityCriteria(Section):
    """What a client must fulfil to be considered at all."""

    min_data_samples: Count = Field(description="Fewest data samples; reads column data_samples.")
    min_flight_hours: NotNegative | None = Field(
        None, description="Fewest flight hours in all; reads column flight_hours."
    )
    min_flight_hours_since_last_round: NotNegative | None = Field(
        None,
        description="Fewest flight hours since the client last took part; reads column flight_hours_since_last_round.",
    )
    data_quality_threshold: Rate | None = Field(
        None, description="Lowest data quality score, 0 to 1; reads column data_quality."
    )
    hardware_health_check: Flag = Field(False, description="Admit only clients whose column hardware_healthy is true.")
    connectivity_requirement: Literal["any", "ground_only", "satellite_only", "hybrid"] = Field(
        "any",
        description="The link a client must have; reads column connectivity (ground, satellite, hybrid). "
        "A hybrid client has both links.",
    )
    no_open_ncrs: Flag = Field(
        False, description="Leave out clients with open non-conformance reports (column open_ncrs)."
    )
    no_active_alerts: Flag = Field(False, description="Leave out clients with active alerts (column active_alerts).")
    aircraft_types: tuple[str, ...] = Field(
        (), description="Types admitted; empty admits all. Reads column aircraft_type."
    )
    aircraft_age_range: AgeRange | None = Field(None, description="Ages admitted, in years; reads column aircraft_age.")
    geographic_region: tuple[str, ...] = Field(
        (), description="Regions admitted; empty admits all. Reads column geographic_region."
    )
    where: Name | None = Field(
        None,
        description="An expression in CEL over the fleet's columns that must be true, e.g. "
        '\'data_samples > 1000 && operator in ["north", "south"]\'.',
    )
    custom_criteria: dict[str, CustomValue] = Field(
        default_factory=dict,
        description="Criteria on columns of the fleet: 'X: value' asks for equality, 'X: [a, b]' for "
        "membership, 'X_min' and 'X_max' bound the numeric column X.",
    )

    @field_validator("custom_criteria")
    @classmethod
    def _readable(cls, criteria: dict[str, CustomValue]) -> dict[str, CustomValue]:
        for key, value in criteria.items():
            bound = key.endswith(("_min", "_max"))
            if not _COLUMN.fullmatch(key[:-4] if bound else key):
                raise ValueError(f"{key!r} names no fleet column")
            if bound and (isinstance(value, bool | str | tuple)):
                raise ValueError(f"{key} is a bound and must be a number, not {value!r}")
            if isinstance(value, tuple) and not value:
                raise ValueError(f"{key} is an empty list, which no client can match; leave it out")
            low, high = criteria.get(f"{key[:-4]}_min"), criteria.get(f"{key[:-4]}_max")
            if bound and isinstance(low, int | float) and isinstance(high, int | float) and low > high:
                raise ValueError(f"{key[:-4]}_min ({low}) is above {key[:-4]}_max ({high})")
        return criteria


class SelectionAlgorithm(Section):
    """How the cohort of a round is drawn from the eligible clients."""

    algorithm: Literal["random", "importance_sampling", "active_learning", "weighted_random", "poisson"] = Field(
        description="How clients are drawn."
    )
    num_clients: Count = Field(description="Clients aimed at in each round.")
    min_clients: Count | None = Field(None, description="Fewest clients with which a round goes on.")
    max_clients: Count | None = Field(None, description="Most clients drawn.")
    stratify_by: tuple[Dimension, ...] = Field((), description="Columns over which draws are spread evenly.")
    sampling_weights: dict[str, Weight | dict[str, Weight]] | None = Field(
        None,
        description="For weighted_random: 'COLUMN: {VALUE: WEIGHT}' weighs clients by a value, 'COLUMN: WEIGHT' by the "
        "size of a number. Weights are 0 to 1,000,000.",
    )
    importance_metric: Literal["data_volume", "data_diversity", "model_contribution", "loss_gradient"] | None = Field(
        None, description="What importance_sampling weighs clients by."
    )
    exploration_rate: Rate | None = Field(
        None, description="Share of draws made at random instead, 0 to 1 (epsilon-greedy)."
    )
    on_shortfall: Literal["fail", "skip_round", "wait"] = Field(
        "fail",
        description="What happens when too few clients are eligible: the run ends, the round passes without training, "
        "or the round waits for the next period of the fairness policy.",
    )
    max_wait: Count | None = Field(None, description="For on_shortfall wait: minutes waited at most.")

    @field_validator("sampling_weights")
    @classmethod
    def _some_weight(
        cls, weights: dict[str, Weight | dict[str, Weight]] | None
    ) -> dict[str, Weight | dict[str, Weight]] | None:
        for column, weight in (weights or {}).items():
            if not _COLUMN.fullmatch(column):
                raise ValueError(f"{column!r} names no fleet column")
            if isinstance(weight, dict) and not any(weight.values()):
                raise ValueError(f"{column} gives no value a weight above 0, so no client could be drawn")
        plain = [weight for weight in (weights or {}).values() if not isinstance(weight, dict)]
        if plain and not any(plain):
            raise ValueError("the weights of columns are all 0, so no client could be drawn")
        return weights

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.max_wait is not None) != (self.on_shortfall == "wait"):
            raise ValueError("on_shortfall: wait and max_wait (minutes) belong together")
        low, high = self.min_clients, self.max_clients
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_clients ({low}) is above max_clients ({high})")
        if low is not None and self.num_clients < low:
            raise ValueError(f"num_clients ({self.num_clients}) is below min_clients ({low})")
        if high is not None and self.num_clients > high:
            raise ValueError(f"num_clients ({self.num_clients}) is above max_clients ({high})")
        if len(set(self.stratify_by)) < len(self.stratify_by):
            raise ValueError("stratify_by names a dimension twice")
        return self


class GroupParity(Section):
    """Equal representation of groups."""

    enabled: Flag = Field(False, description="Whether group parity is enforced.")
    dimensions: tuple[str, ...] = Field((), description="Fleet columns that form the groups.")
    tolerance: Rate | None = Field(None, description="Deviation from equal representation allowed, 0 to 1.")


class FairnessPolicy(Section):
    """How often each client should and may take part."""

    enabled: Flag = Field(False, description="Whether the fairness rules below are enforced.")
    min_participation_per_period: Natural | None = Field(
        None, description="Times that each client should take part in a period."
    )
    period: Literal["week", "month", "quarter", "year"] | None = Field(
        None, description="The period over which participation is counted."
    )
    max_participation_per_period: Natural | None = Field(
        None, description="Times that a client may take part in a period at most."
    )
    ensure_tail_participation: Flag = Field(False, description="Keep places for clients that seldom take part.")
    tail_participation_rate: Rate | None = Field(None, description="Share of places kept for such clients, 0 to 1.")
    group_parity: GroupParity | None = Field(None, description="Equal representation of groups.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.min_participation_per_period, self.max_participation_per_period
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_participation_per_period ({low}) is above max_participation_per_period ({high})")
        return self


class AutoBlacklist(Section):
    """When a client is put on the blacklist without a person's doing."""

    consecutive_failures: Count | None = Field(None, description="After this many failures in a row.")
    data_poisoning_detected: Flag = Field(False, description="When data poisoning was detected.")
    byzantine_behavior_detected: Flag = Field(False, description="When Byzantine behaviour was detected.")


class Blacklist(Section):
    """Clients that never take part."""

    enabled: Flag = Field(False, description="Whether the blacklist is enforced.")
    client_ids: tuple[str, ...] = Field((), description="Ids of the clients shut out.")
    reasons: dict[str, str] = Field(default_factory=dict, description="Why, by client id.")
    auto_blacklist_criteria: AutoBlacklist | None = Field(None, description="When a client is shut out automatically.")


class Greylist(Section):
    """Clients that take part less often."""

    enabled: Flag = Field(False, description="Whether the greylist is enforced.")
    client_ids: tuple[str, ...] = Field((), description="Ids of the clients with lower priority.")
    deprioritization_factor: Rate | None = Field(
        None, description="What their chance of being drawn is multiplied by, 0 to 1."
    )


class SelectorMonitoring(Section):
    """What is recorded about selection."""

    log_selection_decisions: Flag = Field(True, description="Record the reason for every client in or out.")
    track_participation_history: Flag = Field(True, description="Record who took part in which round.")
    alert_on_low_eligibility: Flag = Field(False, description="Warn when few clients are eligible.")
    eligibility_threshold: Count | None = Field(None, description="Fewest eligible clients that cause no warning.")


class Selector(Section):
    """A client selector: eligibility, selection algorithm, fairness."""

    selector_metadata: SelectorMetadata = Field(description="Who the selector is.")
    eligibility_criteria: EligibilityCriteria = Field(description="Which clients may take part.")
    selection_algorithm: SelectionAlgorithm = Field(description="How the cohort is drawn.")
    fairness_policy: FairnessPolicy = Field(description="How participation is spread over clients.")
    blacklist: Blacklist | None = Field(None, description="Clients that never take part.")
    greylist: Greylist | None = Field(None, description="Clients that take part less often.")
    monitoring: SelectorMonitoring | None = Field(None, description="What is recorded about selection.")
