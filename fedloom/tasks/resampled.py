"""Metrics of many resamples at once: each resample is a weight for every cluster of windows.

The values agree with `fedloom.tasks.metrics.compute` when all weights are one. A metric that a resample leaves
undefined is NaN there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks.calibration import BINS, bins_of, confidences, squared_errors

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]
Labels = NDArray[np.int64]
Values = Callable[[Weights], Floats]


@dataclass(frozen=True)
class Sample:
    """Predictions on held-out windows, and which of the windows belong together.

    Attributes:
        output: Kind of model output, a key of `fedloom.tasks.metrics.OF_OUTPUT`.
        y: Class numbers, or true numbers for regression, [N]; None where the data has none.
        scores: As in `fedloom.tasks.metrics.compute`.
        threshold: Score from which a window counts as positive.
        clusters: int64 [N], 0 to C − 1: windows of one cluster are drawn together.
        losses: Loss of each window and its weight in the mean, [N, 2]; None where nobody asks for the loss.
    """

    output: str
    y: NDArray[Any] | None
    scores: Floats
    threshold: float
    clusters: Labels
    losses: Floats | None = None

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.clusters.max()) + 1


@dataclass(frozen=True)
class Statistic:
    """A metric as a function of weights [B, C], and the number of clusters that its value rests on."""

    values: Values
    support: int


def statistic(name: str, sample: Sample) -> Statistic | None:
    """The metric of a name; None where it needs what the sample has not."""
    if name == "loss":
        losses = sample.losses
        return None if losses is None else _ratio(sample, losses[:, 0] * losses[:, 1], losses[:, 1])
    if name == "reconstruction_error":
        return _ratio(sample, sample.scores, np.ones_like(sample.scores))
    y = sample.y
    if y is None:
        return None
    if sample.output == "regression":
        return _regression(name, sample, y)
    if name == "brier_score":
        return _ratio(sample, squared_errors(y, sample.scores), np.ones(len(y)))
    if name == "ece":
        return _ece(sample, y)
    if sample.output == "multi_class":
        return _multi_class(name, sample, y)
    if name in ("auc", "average_precision"):
        return Statistic(_ranking(name, sample, y == 1, sample.scores), _both(sample, y == 1))
    return _rate(name, sample, y == 1, sample.scores >= sample.threshold)


def _rate(name: str, sample: Sample, true: NDArray[np.bool_], positive: NDArray[np.bool_]) -> Statistic | None:
    tp, fp, fn, tn = true & positive, ~true & positive, true & ~positive, ~true & ~positive
    parts = {
        "accuracy": (tp | tn, tp | True),
        "error_rate": (fp | fn, tp | True),
        "precision": (tp, tp | fp),
        "recall": (tp, tp | fn),
        "false_negative_rate": (fn, tp | fn),
        "false_positive_rate": (fp, fp | tn),
        "f1_score": (2 * tp, 2 * tp + fp + fn),
    }
    return None if name not in parts else _ratio(sample, *parts[name])


def _regression(name: str, sample: Sample, y: NDArray[Any]) -> Statistic | None:
    truth = y.astype(np.float64)
    off, truth = sample.scores - truth, truth - truth.mean()  # centred: squares of large numbers would drown the rest
    sums = _sums(sample, np.column_stack([np.abs(off), off**2, truth, truth**2, np.ones(len(y))]))

    def values(weights: Weights) -> Floats:
        far, squared, first, second, count = (weights @ sums).T
        if name == "mae":
            return _divide(far, count)
        if name == "rmse":
            return np.sqrt(_divide(squared, count))
        return 1.0 - _divide(squared, second - _divide(first**2, count))

    return Statistic(values, sample.count) if name in ("mae", "rmse", "r2") else None


def _sums(sample: Sample, parts: NDArray[Any]) -> NDArray[Any]:
    """Sums over the windows of each cluster: [N, K] to [C, K]. Counts are exact in float32, and faster."""
    columns = [np.bincount(sample.clusters, weights=part, minlength=sample.count) for part in parts.T]
    return np.stack(columns, axis=1).astype(np.float64 if parts.dtype == np.float64 else np.float32)


def _divide(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _ratio(sample: Sample, part: NDArray[Any], whole: NDArray[Any]) -> Statistic:
    sums = _sums(sample, np.stack([part, whole], axis=1))

    def values(weights: Weights) -> Floats:
        total = (weights @ sums).astype(np.float64)
        return _divide(total[:, 0], total[:, 1])

    return Statistic(values, int((sums[:, 1] > 0).sum()))


def _ece(sample: Sample, y: Labels) -> Statistic:
    confidence, hit = confidences(y, sample.scores)
    one_hot = bins_of(confidence)[:, None] == np.arange(BINS)
    sums = _sums(sample, np.column_stack([one_hot * (confidence - hit)[:, None], np.ones(len(y))]))

    def values(weights: Weights) -> Floats:
        total = weights @ sums
        return np.asarray(np.abs(total[:, :BINS]).sum(axis=1) / total[:, BINS])

    return Statistic(values, sample.count)


def _ranking(name: str, sample: Sample, true: NDArray[np.bool_], scores: Floats) -> Values:
    """AUC, or average precision."""
    key = scores if name == "auc" else -scores
    positive, negative = (np.flatnonzero(part)[np.argsort(key[part], kind="stable")] for part in (true, ~true))
    high, low = key[positive], key[negative]
    # How many negative windows come before each positive one, without and with those of the same score.
    before, until = (np.searchsorted(low, high, side=side) for side in ("left", "right"))
    own = np.searchsorted(high, high, side="right")

    def auc(others: Weights) -> NDArray[Any]:
        below = _cumulated(others)
        return below[:, before] if np.array_equal(before, until) else (below[:, before] + below[:, until]) / 2

    def precision(hits: Weights, others: Weights) -> NDArray[Any]:
        found = _cumulated(hits)[:, own]
        return np.asarray(found / np.maximum(found + _cumulated(others)[:, until], 1))

    def values(weights: Weights) -> Floats:
        hits, others = weights[:, sample.clusters[positive]], weights[:, sample.clusters[negative]]
        of = auc(others) if name == "auc" else precision(hits, others)
        all_hits, all_others = (part.sum(axis=1, dtype=np.float64) for part in (hits, others))
        pairs = all_hits * all_others if name == "auc" else np.where(all_others > 0, all_hits, 0.0)
        return _divide(np.einsum("ij,ij->i", hits, of, dtype=np.float64), pairs)

    return values


def _cumulated(weights: Weights) -> Weights:
    """Sums of the first 0, 1, 2 … columns; whole numbers below 2**24, and so exact."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1), np.float32)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _both(sample: Sample, true: NDArray[np.bool_]) -> int:
    """Clusters of the rarer kind of windows."""
    return min(len(np.unique(sample.clusters[true])), len(np.unique(sample.clusters[~true])))


def _multi_class(name: str, sample: Sample, y: Labels) -> Statistic | None:
    predicted, classes = sample.scores.argmax(axis=1), np.arange(sample.scores.shape[1])
    if name in ("accuracy", "error_rate"):
        return _ratio(sample, (predicted == y) == (name == "accuracy"), y >= 0)
    if name == "auc":
        return _one_against_rest_auc(sample, y)
    truth, guess = y[:, None] == classes, predicted[:, None] == classes
    sums = _sums(sample, np.column_stack([truth & guess, guess, truth]))
    averages: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
        "precision": lambda tp, guess, truth: _macro(tp, guess, guess + truth),
        "recall": lambda tp, guess, truth: _macro(tp, truth, guess + truth),
        "f1_score": lambda tp, guess, truth: _macro(2 * tp, guess + truth, guess + truth),
        "false_negative_rate": lambda tp, guess, truth: _divide(truth - tp, truth).mean(axis=1),
        "false_positive_rate": lambda tp, guess, truth: _divide(
            guess - tp, truth.sum(axis=1, keepdims=True) - truth
        ).mean(axis=1),
    }
    if name not in averages:
        return None

    def values(weights: Weights) -> Floats:
        return averages[name](*np.split((weights @ sums).astype(np.float64), 3, axis=1))

    return Statistic(values, sample.count)


def _macro(part: Floats, whole: Floats, there: Floats) -> Floats:
    """Mean over the classes that occur at all; one over nothing counts as zero, as scikit-learn has it."""
    rates = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return _divide((rates * (there > 0)).sum(axis=1), (there > 0).sum(axis=1).astype(np.float64))


def _one_against_rest_auc(sample: Sample, y: Labels) -> Statistic:
    classes = range(1, 2) if sample.scores.shape[1] == 2 else range(sample.scores.shape[1])
    each = [_ranking("auc", sample, y == k, sample.scores[:, k]) for k in classes]

    def values(weights: Weights) -> Floats:
        return np.asarray(np.mean([one(weights) for one in each], axis=0))

    return Statistic(values, min(_both(sample, y == k) for k in classes))
