"""Whether scores mean what they say: Brier score, expected calibration error, the table of a calibration plot."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

BINS = 10


class Bin(TypedDict):
    """Windows whose score is in [low, high) (the last bin: [low, high]), their mean score, and how many are right."""

    low: float
    high: float
    count: int
    mean_score: float
    rate: float


def brier_score(y: Labels, scores: Floats) -> float:
    """Mean squared difference between scores and what came true (Brier 1950).

    Args:
        y: Class numbers, [N].
        scores: Probability of class 1, [N], or of every class, [N, classes]. With several classes the squares are
            summed over them, so that the score is between 0 and 2.
    """
    return float(squared_errors(y, scores).mean())


def squared_errors(y: Labels, scores: Floats) -> Floats:
    """The Brier score of each window, [N]."""
    if scores.ndim == 1:
        return np.asarray((scores - y) ** 2)
    truth = np.zeros_like(scores)
    truth[np.arange(len(y)), y] = 1.0
    return np.asarray(((scores - truth) ** 2).sum(axis=1))


def expected_calibration_error(y: Labels, scores: Floats) -> float:
    """Mean gap between confidence and hit rate over ten equally wide bins of confidence (Naeini et al. 2015).

    Arguments are those of `brier_score`.
    """
    confidence, hit = confidences(y, scores)
    of = bins_of(confidence)
    gaps = np.bincount(of, weights=confidence, minlength=BINS) - np.bincount(of, weights=hit, minlength=BINS)
    return float(np.abs(gaps).sum() / len(y))


def confidences(y: Labels, scores: Floats) -> tuple[Floats, Floats]:
    """What a model claims and whether it came true (0 or 1), both [N]: of class 1, or of the likeliest of several."""
    if scores.ndim == 1:
        return scores, y.astype(np.float64)
    return scores.max(axis=1), (scores.argmax(axis=1) == y).astype(np.float64)


def bins_of(confidence: Floats) -> Labels:
    """The bin of each confidence, 0 to `BINS` − 1."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def calibration_table(y: Labels, scores: Floats) -> list[Bin]:
    """The bins that have windows, in order."""
    confidence, hit = confidences(y, scores)
    of = bins_of(confidence)
    return [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "count": int((of == number).sum()),
            "mean_score": float(confidence[of == number].mean()),
            "rate": float(hit[of == number].mean()),
        }
        for number in np.unique(of).tolist()
    ]
