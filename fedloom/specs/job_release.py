"""How a model is judged and released."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedloom.specs.base import Section
from fedloom.specs.fields import Comparison, Count, Flag, Name, NotNegative, Number, Positive, Rate

Fault = Literal["noise", "bias", "dropped_axis", "stuck_axis"]


class HoldoutDataset(Section):
    """Data that no client trains on."""

    source: Name | None = Field(None, description="Where it lies.")
    size: Count | None = Field(None, description="Number of samples.")
    stratified: Flag = Field(False, description="Whether it keeps the shares of the classes.")
    stratify_by: tuple[Name, ...] = Field((), description="Further columns of the data whose shares it keeps.")


class MetricTarget(Section):
    """A metric to report, and the value it should reach."""

    name: Name = Field(description="Name of the metric, e.g. auc.")
    full_name: str | None = Field(None, description="Its name in words.")
    target: Number | None = Field(None, description="Value to reach (or to stay below, for error metrics).")
    aggregation: Literal["weighted_average", "average", "min", "max", "median"] | None = Field(
        None, description="How the values of the clients are combined."
    )


class Bounds(Section):
    """Limits of a metric."""

    min: Number | None = Field(None, description="Lowest value allowed.")
    max: Number | None = Field(None, description="Highest value allowed.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min:g}) is above max ({self.max:g})")
        return self


class BiasFairness(Section):
    """Whether the model serves all groups alike."""

    enabled: Flag = Field(False, description="Whether groups are compared.")
    disaggregate_by: tuple[Name, ...] = Field(
        (), description="Columns of the held-out data that form the groups; those of the validation if not given."
    )
    fairness_threshold: Rate | None = Field(
        None, description="Largest gap between groups in the job's first metric, 0 to 1."
    )


class DriftDetection(Section):
    """Whether the data have moved away from what the model was trained on."""

    enabled: Flag = Field(False, description="Whether drift is watched.")
    method: Literal["PSI", "KS", "concept_drift"] | None = Field(
        None, description="How drift is measured; PSI if not given."
    )
    alert_threshold: Positive | None = Field(
        None, description="Drift of a signal above which the gate withholds the model, e.g. 0.2 for PSI."
    )
    baseline_distribution: Name | None = Field(
        None, description="Where the reference distribution lies: a file that `fedloom data baseline` made."
    )


class Robustness(Section):
    """What faults of sensors do to the model's first metric."""

    faults: Annotated[tuple[Fault, ...], Field(min_length=1)] = Field(
        ("noise", "bias", "dropped_axis", "stuck_axis"), description="Faults put into the held-out windows."
    )
    severity: Positive = Field(
        0.5, description="Size of noise and bias, in standard deviations of each signal in the held-out data."
    )
    max_drop: Positive = Field(0.1, description="How much worse the first metric may get by any of the faults.")

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.faults)) < len(self.faults):
            raise ValueError("faults names a fault twice")
        return self


class Confidence(Section):
    """Targets and thresholds judged on the end of a confidence interval, where the held-out sample is small."""

    level: Annotated[Number, Field(ge=0.5, lt=1)] = Field(0.95, description="Level of the interval, e.g. 0.95.")
    method: Literal["bootstrap"] = Field("bootstrap", description="How the interval is found.")
    below: Count = Field(1000, description="Number of held-out windows below which the interval decides.")


class ValidationSpec(Section):
    """Metrics, targets and the data they are measured on."""

    evaluation_mode: Flag = Field(False, description="Evaluate only: no training.")
    holdout_dataset: HoldoutDataset | None = Field(None, description="Data that no client trains on.")
    metrics: tuple[MetricTarget, ...] = Field((), description="Metrics to report, with targets.")
    thresholds: dict[str, Number | Bounds] = Field(
        default_factory=dict,
        description="Limits by metric that the model must keep: a number (in the metric's good direction) or "
        "min and max.",
    )
    disaggregate_by: tuple[Name, ...] = Field((), description="Columns by whose values metrics are broken down.")
    bias_fairness: BiasFairness | None = Field(None, description="Comparison of groups.")
    drift_detection: DriftDetection | None = Field(None, description="Watch over the data.")
    robustness: Robustness | None = Field(None, description="Metrics under faults of sensors.")
    confidence: Confidence | None = Field(
        None, description="Judge limits on a confidence interval; on the value alone if not given."
    )
    champion_margin: NotNegative | None = Field(
        None,
        description="How much worse than the champion the model may be in the first metric; an interval of the "
        "difference must show it. The values alone are compared if not given.",
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [metric.name for metric in self.metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"metrics names {', '.join(twice)} twice")
        return self


class Criterion(Section):
    """A condition on a metric."""

    metric: Name = Field(description="Name of the metric.")
    threshold: Number = Field(description="Value that it is compared with.")
    comparison: Comparison | None = Field(None, description="How; the metric's good direction if not given.")


class CanaryPhase(Section):
    """The first, small step of a rollout."""

    duration: Name | None = Field(None, description="How long it lasts, e.g. 24 hours.")
    success_criteria: tuple[Criterion, ...] = Field((), description="What must hold to go on.")


class RolloutStep(Section):
    """One step of a progressive rollout."""

    percentage: Annotated[Positive, Field(le=100)] = Field(description="Share of the fleet, in percent.")
    duration: Name | None = Field(None, description="How long it lasts, e.g. 24 hours, or indefinite.")


class ProgressiveRollout(Section):
    """A rollout in growing steps."""

    enabled: Flag = Field(True, description="Whether the rollout is progressive.")
    phases: tuple[RolloutStep, ...] = Field((), description="Its steps.")


class RollbackTrigger(Section):
    """When a release is taken back."""

    auto_rollback: Flag = Field(False, description="Whether it is taken back without a person's doing.")
    conditions: tuple[Criterion, ...] = Field((), description="Any of which takes it back.")


class DeploymentSpec(Section):
    """How a model is released; a rollout.yaml says more and is preferred."""

    rollout_strategy: Literal["canary", "blue_green", "progressive"] | None = Field(
        None, description="Strategy of the rollout."
    )
    canary_clients: tuple[Name, ...] = Field((), description="Ids of the clients that get the model first.")
    canary_phase: CanaryPhase | None = Field(None, description="The first, small step.")
    progressive_rollout: ProgressiveRollout | None = Field(None, description="Growing steps.")
    rollback_trigger: RollbackTrigger | None = Field(None, description="When the release is taken back.")
