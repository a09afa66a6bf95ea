"""Metrics of a model on held-out data: their names, which way is better, and their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedloom.tasks import regression

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Labels = NDArray[np.int64]

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "auc": True,
    "average_precision": True,
    "accuracy": True,
    "precision": True,
    "recall": True,
    "f1_score": True,
    "error_rate": False,
    "false_positive_rate": False,
    "false_negative_rate": False,
    "brier_score": False,
    "ece": False,
    "loss": False,
    "reconstruction_error": False,
    "drift_psi": False,
    "drift_ks": False,
    "latency_p50": False,
    "latency_p95": False,
    "latency_p99": False,
    "model_bytes": False,
    "parameters": False,
    "mae": False,
    "rmse": False,
    "r2": True,
}
"""Every metric that an evaluation can compute."""

HOLDOUT = "holdout_"
"""What the names of metrics on held-out data begin with, where the plain names are those of the clients."""

_LABELLED = frozenset({"auc", "average_precision"})
_DECIDED = frozenset(
    {"accuracy", "precision", "recall", "f1_score", "error_rate", "false_positive_rate", "false_negative_rate"}
)
OF_OUTPUT: Mapping[str, frozenset[str]] = {
    "binary_classification": _LABELLED | _DECIDED | {"brier_score", "ece", "loss"},
    "multi_class": _DECIDED | {"auc", "brier_score", "ece", "loss"},
    "reconstruction_error": _LABELLED | {"reconstruction_error", "loss"},
    "regression": regression.NAMES | {"loss"},
}
"""The metrics of predictions that make sense for each kind of model output."""

DRIFT = frozenset({"drift_psi", "drift_ks"})
LATENCY = frozenset({"latency_p50", "latency_p95", "latency_p99"})
BESIDE = DRIFT | LATENCY | {"model_bytes", "parameters"}
"""Metrics of the data and of the model itself, whatever its output is."""


@dataclass(frozen=True)
class Metrics:
    """Values by name, for each metric without a value the reason, and whether the model's scores are numbers."""

    values: Mapping[str, float]
    undefined: Mapping[str, str]
    finite: bool = True


def canonical_metric(name: str) -> str:
    """``val_auc`` and ``auc`` are the same metric: all are computed on held-out data."""
    return name.removeprefix("val_")


def held_out(name: str) -> str:
    """What a metric on held-out data is called where the plain names are those of the clients."""
    return name if name in BESIDE else HOLDOUT + name


def higher_is_better(name: str) -> bool | None:
    """Which way is better for a metric, of clients or on held-out data; None for a name that is none."""
    return HIGHER_IS_BETTER.get(name.removeprefix(HOLDOUT))


def metrics_of(output: str) -> frozenset[str]:
    """Every metric that a job with this kind of output may name."""
    return OF_OUTPUT.get(output, frozenset()) | BESIDE


def of_predictions(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the metrics that `compute` finds."""
    return tuple(name for name in names if name not in BESIDE)


def compute(
    names: tuple[str, ...], output: str, y: NDArray[Any] | None, scores: Floats, threshold: float, loss: float
) -> Metrics:
    """Compute metrics on held-out windows.

    Args:
        names: Which metrics; those of `BESIDE` are not found here.
        output: Kind of model output, a key of `OF_OUTPUT`.
        y: Class numbers, shape [N], or the true values for regression; None where the data has none.
        scores: Probability of class 1, anomaly score or predicted value, shape [N]; class probabilities,
            shape [N, classes], for multi_class.
        threshold: Score from which a window counts as positive (binary_classification).
        loss: Mean loss per window.

    Returns:
        The values that are defined; NaN never appears.
    """
    values: dict[str, float] = {"loss": loss}
    undefined: dict[str, str] = {}
    if output == "regression" and y is not None:
        known = {"loss": loss, **regression.errors(y, scores)}
        undefined = {name: "all true values are equal" for name in names if name not in known}
        return Metrics({name: known[name] for name in ("loss", *names) if name in known}, undefined)
    for name in names:
        if name == "loss":
            continue
        if name == "reconstruction_error":
            values[name] = float(scores.mean())
        elif y is None:
            undefined[name] = "the held-out data has no labels"
        else:
            try:
                values[name] = _value(name, output, y, scores, threshold)
            except UndefinedMetricError as reason:
                undefined[name] = str(reason)
    return Metrics(values, undefined)


class UndefinedMetricError(Exception):
    """A metric has no value on this data."""


def _value(name: str, output: str, y: Labels, scores: Floats, threshold: float) -> float:
    if output == "multi_class":
        return _multi_class(name, y, scores)
    if name in _LABELLED:
        return _ranking(name, y, scores)
    if name in ("brier_score", "ece"):
        return _calibration(name, y, scores)
    return _decision(name, y, scores >= threshold)


def _ranking(name: str, y: Labels, scores: Floats) -> float:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if len(set(y.tolist())) < 2:
        raise UndefinedMetricError("the held-out data has one class only")
    rank: Callable[..., float] = roc_auc_score if name == "auc" else average_precision_score
    return float(rank(y, scores))


def _calibration(name: str, y: Labels, scores: Floats) -> float:
    from fedloom.tasks.calibration import brier_score, expected_calibration_error

    return brier_score(y, scores) if name == "brier_score" else expected_calibration_error(y, scores)


def _decision(name: str, y: Labels, positive: NDArray[np.bool_]) -> float:
    """Rates of the confusion matrix; a rate over no windows is undefined, not zero."""
    from sklearn.metrics import confusion_matrix

    tn, fp, fn, tp = (int(n) for n in confusion_matrix(y, positive, labels=[0, 1]).ravel())
    return rate(name, tn, fp, fn, tp)


def rate(name: str, tn: int, fp: int, fn: int, tp: int) -> float:
    """A rate of a confusion matrix.

    Raises:
        UndefinedMetricError: when it is a rate over no windows.
    """
    parts: dict[str, tuple[int, int, str]] = {
        "accuracy": (tp + tn, tp + tn + fp + fn, "there are no windows"),
        "error_rate": (fp + fn, tp + tn + fp + fn, "there are no windows"),
        "precision": (tp, tp + fp, "no window was predicted positive"),
        "recall": (tp, tp + fn, "no window is positive"),
        "false_negative_rate": (fn, tp + fn, "no window is positive"),
        "false_positive_rate": (fp, fp + tn, "no window is negative"),
        "f1_score": (2 * tp, 2 * tp + fp + fn, "no window is or was predicted positive"),
    }
    part, whole, reason = parts[name]
    if whole == 0:
        raise UndefinedMetricError(reason)
    return part / whole


def _multi_class(name: str, y: Labels, scores: Floats) -> float:
    from sklearn import metrics

    predicted = scores.argmax(axis=1)
    if name in ("accuracy", "error_rate"):
        accuracy = float((predicted == y).mean())
        return accuracy if name == "accuracy" else 1.0 - accuracy
    if name in ("brier_score", "ece"):
        return _calibration(name, y, scores)
    if name in ("false_positive_rate", "false_negative_rate"):
        return _one_against_rest(name, metrics.multilabel_confusion_matrix(y, predicted, labels=range(scores.shape[1])))
    if name == "auc":
        if len(set(y.tolist())) < scores.shape[1]:
            raise UndefinedMetricError("the held-out data lacks some of the classes")
        if scores.shape[1] == 2:
            return float(metrics.roc_auc_score(y, scores[:, 1]))
        return float(metrics.roc_auc_score(y, scores, multi_class="ovr", labels=range(scores.shape[1])))
    function: Callable[..., float] = getattr(metrics, f"{name.removesuffix('_score')}_score")
    return float(function(y, predicted, average="macro", zero_division=0.0))


def _one_against_rest(name: str, matrices: NDArray[np.int64]) -> float:
    """The mean of a rate over the classes, each against all others; matrices are [[tn, fp], [fn, tp]], one a class."""
    row, column = (0, 1) if name == "false_positive_rate" else (1, 0)
    part, whole = matrices[:, row, column], matrices[:, row].sum(axis=1)
    if not whole.all():
        raise UndefinedMetricError("the held-out data lacks some of the classes")
    return float((part / whole).mean())
