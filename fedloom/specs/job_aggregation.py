"""How updates become a global model, beyond the choice of algorithm."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedloom.specs.base import Section
from fedloom.specs.fields import Count, Flag, Name, Natural, Number, Positive, Rate
from fedloom.specs.job_privacy import DifferentialPrivacy, SecureAggregation

ROBUST_ALGORITHMS = {"Krum": "krum", "Median": "median", "TrimmedMean": "trimmed_mean"}
"""Names of robust rules among the algorithms, and among the methods."""


class ClipWeights(Section):
    """Bounds on a client's weight."""

    enabled: Flag = Field(True, description="Whether weights are bounded.")
    min_weight: Rate | None = Field(None, description="Lowest weight, 0 to 1.")
    max_weight: Rate | None = Field(None, description="Highest weight, 0 to 1: no client dominates.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.min_weight, self.max_weight
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_weight ({low:g}) is above max_weight ({high:g})")
        return self


class Weighting(Section):
    """What updates are weighted by."""

    strategy: Literal["num_samples", "uniform", "custom", "loss_based", "contribution"] = Field(
        "num_samples", description="What a client's update is weighted by; custom reads a column of the fleet."
    )
    normalize: Flag = Field(
        True, description="Whether the weights are made to sum to 1; false is for custom weights that are shares."
    )
    clip_weights: ClipWeights | None = Field(None, description="Bounds on a client's weight.")


class KrumConfig(Section):
    """Settings of Krum."""

    num_closest: Count | None = Field(None, description="Most nearest updates that an update is compared with.")
    exclude_furthest: Natural | None = Field(
        None,
        description="Updates that may be hostile, in bulyan too; as many as the number of updates allows if not given.",
    )


class TrimmedMeanConfig(Section):
    """Settings of the trimmed mean."""

    trim_ratio: Annotated[Number, Field(ge=0, lt=0.5)] = Field(
        0.1, description="Share cut off at each end, 0 up to but not including 0.5."
    )


class ByzantineRobust(Section):
    """Aggregation that withstands hostile updates."""

    enabled: Flag = Field(False, description="Whether robust aggregation is on.")
    method: Literal["krum", "median", "trimmed_mean", "bulyan", "multi_krum"] | None = Field(
        None, description="Which one."
    )
    krum_config: KrumConfig | None = Field(None, description="Settings of Krum, Multi-Krum and Bulyan.")
    trimmed_mean_config: TrimmedMeanConfig | None = Field(None, description="Settings of the trimmed mean.")


class QualityCheck(Section):
    """One check of an update."""

    name: Name = Field(description="gradient_norm, parameter_distance, loss_improvement or data_poisoning_score.")
    metric: Name | None = Field(None, description="parameter_distance: l2, l1, linf or cosine.")
    threshold: Positive | None = Field(None, description="Value above which the action is taken.")
    min_improvement: Number | None = Field(None, description="Improvement below which the action is taken.")
    action: Literal["exclude", "clip", "flag"] = Field("flag", description="What happens to the update.")


class Staleness(Section):
    """What happens to late updates."""

    max_rounds_stale: Natural = Field(description="Rounds by which an update may be late.")
    action: Literal["exclude", "flag"] = Field("exclude", description="What happens to later ones.")


class QualityChecks(Section):
    """Checks that each update passes before it counts."""

    enabled: Flag = Field(True, description="Whether updates are checked.")
    checks: tuple[QualityCheck, ...] = Field((), description="The checks.")
    staleness: Staleness | None = Field(None, description="What happens to late updates.")


class AggregationSpec(Section):
    """How updates become a global model."""

    algorithm: (
        Literal["FedAvg", "FedProx", "FedOpt", "FedYogi", "FedAdam", "SCAFFOLD", "Krum", "Median", "TrimmedMean"] | None
    ) = Field(None, description="Base algorithm; that of training_config if not given.")
    updates: Name | None = Field(
        None,
        description="Where given updates lie: a folder with an index.json, in the job folder or as a URL. "
        "The job then trains nothing.",
    )
    weighting: Weighting | None = Field(None, description="What updates are weighted by.")
    byzantine_robust: ByzantineRobust | None = Field(None, description="Withstand hostile updates.")
    quality_checks: QualityChecks | None = Field(None, description="Checks of each update.")
    differential_privacy: DifferentialPrivacy | None = Field(None, description="Noise on the aggregate.")
    secure_aggregation: SecureAggregation | None = Field(None, description="Show the server only the sum.")
