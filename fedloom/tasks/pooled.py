"""Metrics over the windows of all clients together, exact without anyone's windows: from numbers that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.tasks.metrics import UndefinedMetricError, rate

_MEANS = frozenset({"loss", "brier_score", "reconstruction_error"})
"""Means over windows: those of clients, weighted by their windows, are that of all."""


def pooled_metrics(figures: Sequence[Mapping[str, Any]], names: Sequence[str], output: str) -> dict[str, Any]:
    """Pool the figures of clients.

    Rankings, such as auc, do not add up, and are left out.

    Args:
        figures: Of each client, see `fedloom.tasks.measure.client_figures`.
        names: The metrics wanted.
        output: Kind of model output.

    Returns:
        metrics, undefined: By name, the value or why there is none. confusion: Windows by label (row) and prediction
        (column), None where no client has counted them.
    """
    values: dict[str, float] = {}
    undefined: dict[str, str] = {}
    counted = [own["confusion"] for own in figures if own["confusion"] is not None]
    matrix = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*counted, strict=True)] or None
    for name in names:
        have = [(own["windows"], own["metrics"][name]) for own in figures if name in own["metrics"]]
        if name in _MEANS and have:
            values[name] = sum(windows * value for windows, value in have) / sum(windows for windows, _ in have)
        elif name not in _MEANS and matrix is not None:
            try:
                if (value := _from_counts(name, matrix, output)) is not None:
                    values[name] = value
            except UndefinedMetricError as reason:
                undefined[name] = str(reason)
    return {"metrics": values, "undefined": undefined, "confusion": matrix}


def _from_counts(name: str, matrix: list[list[int]], output: str) -> float | None:
    """A metric from the confusion matrix; None for one that does not follow from it."""
    if name in ("auc", "average_precision"):
        return None
    if output == "binary_classification":
        (tn, fp), (fn, tp) = matrix
        return rate(name, tn, fp, fn, tp)
    right, total = sum(matrix[k][k] for k in range(len(matrix))), sum(map(sum, matrix))
    if name in ("accuracy", "error_rate"):
        return right / total if name == "accuracy" else 1 - right / total
    # As scikit-learn's macro average: over the classes that occur or are predicted, 0 where nothing is.
    per_class = []
    for k, row in enumerate(matrix):
        hits, true, found = row[k], sum(row), sum(other[k] for other in matrix)
        part, whole = {"precision": (hits, found), "recall": (hits, true), "f1_score": (2 * hits, true + found)}[name]
        if true or found:
            per_class.append(part / whole if whole else 0.0)
    return sum(per_class) / len(per_class)
