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
