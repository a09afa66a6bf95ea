"""Metrics of a model for each group of held-out windows, and how far the groups are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks.client_data import Windows
from fedloom.tasks.metrics import HIGHER_IS_BETTER, Metrics

NO_WINDOWS = "the group has no windows in the held-out sample"

MeasureRows = Callable[[NDArray[np.int64]], Metrics]
"""The job's metrics on some of the held-out windows, at least one."""


@dataclass(frozen=True)
class Group:
    """One group: its windows, its metrics, and why it lacks others."""

    windows: int
    metrics: Mapping[str, float]
    undefined: Mapping[str, str]


@dataclass(frozen=True)
class Gap:
    """How far the worst group is from the best in a metric: its name, its value, and the distance."""

    worst: str
    value: float
    gap: float


def by_group(
    columns: tuple[str, ...], names: tuple[str, ...], windows: Windows, measure: MeasureRows
) -> dict[str, dict[str, Group]]:
    """Metrics by column and group.

    Args:
        columns: Columns of ``windows``.
        names: The job's metrics of predictions.
        windows: The held-out windows.
        measure: Finds the metrics.
    """
    found: dict[str, dict[str, Group]] = {}
    for column in columns:
        values, codes = windows.columns[column].values, windows.columns[column].codes
        found[column] = {
            value: _group(np.flatnonzero(codes == code), names, measure) for code, value in enumerate(values)
        }
    return found


def _group(rows: NDArray[np.int64], names: tuple[str, ...], measure: MeasureRows) -> Group:
    if not len(rows):
        return Group(0, {}, dict.fromkeys(names, NO_WINDOWS))
    measured = measure(rows)
    values = {name: measured.values[name] for name in names if name in measured.values}
    return Group(len(rows), values, dict(measured.undefined))


def gaps(groups: Mapping[str, Group], names: tuple[str, ...]) -> dict[str, Gap]:
    """The gap in each metric that at least two groups of a column have."""
    found: dict[str, Gap] = {}
    for name in names:
        values = {value: group.metrics[name] for value, group in groups.items() if name in group.metrics}
        if len(values) < 2:
            continue
        best, worst = (max, min) if HIGHER_IS_BETTER[name] else (min, max)
        last = worst(values, key=lambda value: values[value])
        found[name] = Gap(last, values[last], abs(best(values.values()) - values[last]))
    return found
