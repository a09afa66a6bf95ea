"""What the steps read of the judgement of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """A limit on a metric: at least ``minimum`` and at most ``maximum``; named by where it stands in the spec."""

    name: str
    metric: str
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class GapRecipe:
    """By which columns groups are compared, and the largest gap allowed in the first metric."""

    columns: tuple[str, ...]
    threshold: float


@dataclass(frozen=True)
class DriftRecipe:
    """How far the held-out data may have moved.

    Attributes:
        method: "PSI" or "KS".
        baseline: Location of the reference distribution.
        threshold: Drift of a signal from which the gate withholds the model.
    """

    method: str
    baseline: str
    threshold: float


@dataclass(frozen=True)
class RobustnessRecipe:
    """What the model must bear.

    Attributes:
        faults: Names, keys of `fedloom.tasks.robustness.FAULTS`.
        severity: Of noise and bias, in standard deviations of each signal.
        max_drop: How much worse the first metric may get.
    """

    faults: tuple[str, ...]
    severity: float
    max_drop: float


@dataclass(frozen=True)
class ConfidenceRecipe:
    """Intervals that decide on limits: their level, and the number of windows below which they do."""

    level: float
    below: int


@dataclass(frozen=True)
class EvaluationRecipe:
    """How a model is judged.

    Attributes:
        holdout: Location of the held-out data; None when the job names none.
        holdout_size: Windows drawn from it; None for all.
        stratified: Draw them in the proportion of the labels.
        metrics: Names, in the order of the spec.
        bounds: Targets and thresholds of the gate.
        threshold: Score from which a window counts as positive.
        stop_metric: Metric that early stopping watches; None when it is off.
        stop_value: Value of that metric at which training has reached its goal.
        patience: Rounds without improvement after which training stops.
        min_delta: Change of that metric up to which it counts as none.
        stratify_by: Columns of the held-out data whose shares the drawn windows keep.
        groups: Columns of the held-out data by whose values metrics are broken down.
        fairness: Largest gap between groups; None for no check.
        drift: Watch over the held-out data; None for none.
        robustness: Faults that the model must bear; None for none.
        confidence: When limits are judged on an interval; None for never.
        champion_margin: How much worse than the champion the model may be shown to be; None to compare the values.
    """

    holdout: str | None
    holdout_size: int | None
    stratified: bool
    metrics: tuple[str, ...]
    bounds: tuple[Bound, ...]
    threshold: float
    stop_metric: str | None
    stop_value: float | None
    patience: int | None
    min_delta: float = 0.0
    stratify_by: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    fairness: GapRecipe | None = None
    drift: DriftRecipe | None = None
    robustness: RobustnessRecipe | None = None
    confidence: ConfidenceRecipe | None = None
    champion_margin: float | None = None
