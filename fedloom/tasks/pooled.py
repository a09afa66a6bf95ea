"""Metrics over the windows of all clients together, exact without anyone's windows: from numbers that add up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.tasks.metrics import UndefinedMetricError, rate

_MEANS = frozenset({"loss", "brier_score", "reconstruction_error", "mae"})
"""Means over windows: those of clients, weighted by their windows, are that of all."""
_COUNTED = frozenset(
    {"accuracy", "error_rate", "precision", "recall", "f1_score", "false_positive_rate", "false_negative_rate"}
)
"""Rates of the confusion matrix."""


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
            values[name] = _mean(have)
        elif name == "rmse" and have:
            values[name] = math.sqrt(_mean([(windows, value**2) for windows, value in have]))
        elif name in _COUNTED and matrix is not None:
            try:
                values[name] = _from_counts(name, matrix, output)
            except UndefinedMetricError as reason:
                undefined[name] = str(reason)
    return {"metrics": values, "undefined": undefined, "confusion": matrix}


def _mean(have: list[tuple[int, float]]) -> float:
    return sum(windows * value for windows, value in have) / sum(windows for windows, _ in have)


def _from_counts(name: str, matrix: list[list[int]], output: str) -> float:
    """A rate of a confusion matrix; of several classes, as `fedloom.tasks.metrics` has it."""
    if output == "binary_classification":
        (tn, fp), (fn, tp) = matrix
        return rate(name, tn, fp, fn, tp)
    total, classes = sum(map(sum, matrix)), range(len(matrix))
    right = sum(matrix[k][k] for k in classes)
    if name in ("accuracy", "error_rate"):
        return right / total if name == "accuracy" else 1 - right / total
    rates = []
    for k in classes:
        tp, true, found = matrix[k][k], sum(matrix[k]), sum(row[k] for row in matrix)
        if name in ("false_positive_rate", "false_negative_rate"):
            part, whole = (found - tp, total - true) if name == "false_positive_rate" else (true - tp, true)
            if not whole:
                raise UndefinedMetricError("the clients' data lack some of the classes")
            rates.append(part / whole)
        elif true or found:  # as scikit-learn's macro average: classes that occur or are predicted, 0 where nothing is
            parts = {"precision": (tp, found), "recall": (tp, true), "f1_score": (2 * tp, true + found)}
            part, whole = parts[name]
            rates.append(part / whole if whole else 0.0)
    return sum(rates) / len(rates)
