"""Confidence intervals of metrics on held-out windows, by a bootstrap over clusters of windows.

Windows of one recording, and windows that overlap, are not independent: what belongs together is drawn together
(cluster bootstrap, Davison and Hinkley 1997, chapter 3.8). Intervals are percentile intervals with two equal tails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks import regression
from fedloom.tasks.client_data import Windows
from fedloom.tasks.metrics import HIGHER_IS_BETTER
from fedloom.tasks.resampled import Floats, Labels, Sample, Weights, statistic

RESAMPLES = 1000
MIN_RECORDINGS = 10
"""With fewer recordings, blocks of overlapping windows are drawn instead: a handful of draws shows no spread."""
_UNDEFINED = 0.05
_NO_SHARES = regression.NAMES | {"reconstruction_error", "loss"}
"""Metrics with a unit, or without a lower end: 0 and 1 are not the ends of what they can be."""
_NUMBERS_AT_ONCE = 4_000_000
_UNKNOWN = "no interval is known for this metric"
_ONE_CLUSTER = "all windows belong together: nothing shows how they vary"
_TOO_FEW = "it is undefined in many resamples: there are too few windows of a class"


@dataclass(frozen=True)
class Interval:
    """Two ends, and the level (such as 0.95) at which the truth lies between them."""

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Intervals:
    """Intervals by metric, and for each metric without one the reason."""

    found: Mapping[str, Interval]
    missing: Mapping[str, str]


def clusters_of(windows: Windows, size: int, stride: int) -> tuple[Labels, str]:
    """Which windows belong together, as numbers from 0, and what they share.

    Args:
        windows: The held-out windows.
        size: Samples in a window.
        stride: Samples from one window's start to the next.
    """
    overlap = -(-size // stride)
    if windows.recordings is None or windows.starts is None:
        return np.arange(len(windows.x)), "window"
    if len(np.unique(windows.recordings)) >= MIN_RECORDINGS:
        return np.unique(windows.recordings, return_inverse=True)[1].astype(np.int64), "recording"
    if overlap == 1:
        return np.arange(len(windows.x)), "window"
    blocks = np.stack([windows.recordings, windows.starts // (overlap * stride)])
    codes = np.unique(blocks, axis=1, return_inverse=True)[1]
    return codes.reshape(-1).astype(np.int64), "block of overlapping windows"


def intervals(names: tuple[str, ...], sample: Sample, level: float, rng: np.random.Generator) -> Intervals:
    """Intervals of the metrics of one model.

    Args:
        names: Metrics that have a value on this sample.
        sample: The model's predictions.
        level: Of the intervals.
        rng: Where the resamples come from.
    """
    known = {name: one for name in names if (one := statistic(name, sample)) is not None}
    missing = {name: _UNKNOWN for name in names if name not in known}
    if sample.count < 2:
        return Intervals({}, dict.fromkeys(names, _ONE_CLUSTER))
    drawn: dict[str, list[Floats]] = {name: [] for name in known}
    for weights in resamples(sample, rng):
        for name, one in known.items():
            drawn[name].append(one.values(weights))
    found: dict[str, Interval] = {}
    for name, one in known.items():
        interval = percentile(np.concatenate(drawn[name]), level)
        if interval is None:
            missing[name] = _TOO_FEW
        else:
            found[name] = _widened(name, interval, one.support)
    return Intervals(found, missing)


def difference(name: str, ours: Sample, theirs: Sample, paired: bool, level: float, seed: int) -> Interval | str:
    """By how much a model is better than another, with both measured on the same resamples where that is possible.

    Args:
        name: A metric that has a value for both.
        ours: Predictions of the model.
        theirs: Those of the other.
        paired: Whether both have the same windows; if not, each is resampled for itself.
        level: Of the interval.
        seed: Where the resamples come from.

    Returns:
        The interval of the difference (below zero the model is worse), or why there is none.
    """
    samples = (ours, theirs)
    known = [statistic(name, sample) for sample in samples]
    if min(sample.count for sample in samples) < 2:
        return _ONE_CLUSTER
    drawn: list[Floats] = []
    for number, (one, sample) in enumerate(zip(known, samples, strict=True)):
        if one is None:
            return _UNKNOWN
        rng = np.random.default_rng([seed, 0 if paired else number])
        drawn.append(np.concatenate([one.values(weights) for weights in resamples(sample, rng)]))
    sign = 1.0 if HIGHER_IS_BETTER[name] else -1.0
    return percentile(sign * (drawn[0] - drawn[1]), level) or _TOO_FEW


def resamples(sample: Sample, rng: np.random.Generator) -> Iterator[Weights]:
    """How often each cluster is drawn, [B, C] by turns: as many draws as there are clusters, with replacement."""
    count = sample.count
    at_once = max(1, min(RESAMPLES, _NUMBERS_AT_ONCE // len(sample.clusters)))
    for first in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - first)
        drawn = rng.integers(count, size=(rows, count), dtype=np.int32).astype(np.int64)
        yield np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float32)


def percentile(values: NDArray[np.float64], level: float) -> Interval | None:
    """The interval between the tails; None when too many resamples have no value."""
    defined = values[np.isfinite(values)]
    if len(defined) < (1 - _UNDEFINED) * len(values):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def _widened(name: str, interval: Interval, support: int) -> Interval:
    """A metric of exactly 0 or 1 does not vary in any resample; then Wilson's interval says what clusters allow."""
    if name in _NO_SHARES or interval.low != interval.high or interval.low not in (0.0, 1.0):
        return interval
    z = NormalDist().inv_cdf((1 + interval.level) / 2) ** 2
    spread = z / (max(support, 1) + z)
    low, high = (0.0, spread) if interval.low == 0.0 else (1.0 - spread, 1.0)
    return Interval(low, high, interval.level)
