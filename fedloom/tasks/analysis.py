"""What the gate looks at before a release: the model's metrics with intervals, by group, under faults, and its size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.specs.canonical import plain
from fedloom.tasks.bootstrap import Intervals, clusters_of, intervals
from fedloom.tasks.calibration import calibration_table
from fedloom.tasks.client_data import Windows
from fedloom.tasks.evaluate import Predictions, measure, measure_predictions, predict, read_holdout
from fedloom.tasks.groups import Gap, Group, by_group, gaps
from fedloom.tasks.latency import latency
from fedloom.tasks.metrics import Metrics, of_predictions
from fedloom.tasks.model_store import read_model, tensors_to_bytes
from fedloom.tasks.models import State
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.resampled import Sample
from fedloom.tasks.robustness import faulty
from fedloom.tasks.seeds import seed_sequence
from fedloom.tasks.step import Place
from fedloom.tasks.window_losses import window_losses

DEFAULT_LEVEL = 0.95
_ROC_POINTS = 200


@dataclass(frozen=True)
class Analysis:
    """A model on the held-out data. Everything but its size is empty where there are none, or scores are no numbers.

    Attributes:
        model_bytes: Size of the model's file.
        parameters: Numbers in it.
        windows: Held-out windows.
        sample: Its predictions.
        drawn_by: What windows share that are drawn together: "recording", "window" …
        intervals: Confidence intervals by metric.
        groups: By column and group.
        gaps: By column and metric.
        robustness: Metrics under each fault.
        drift: PSI and KS by signal.
        latency: Percentiles in milliseconds; a measurement that no two machines agree on.
    """

    model_bytes: int
    parameters: int
    windows: int = 0
    sample: Sample | None = None
    drawn_by: str = "window"
    intervals: Intervals = field(default_factory=lambda: Intervals({}, {}))
    groups: Mapping[str, Mapping[str, Group]] = field(default_factory=dict)
    gaps: Mapping[str, Mapping[str, Gap]] = field(default_factory=dict)
    robustness: Mapping[str, Metrics] = field(default_factory=dict)
    drift: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    latency: Mapping[str, float] = field(default_factory=dict)


def analyse(place: Place) -> Analysis:
    """Analyse the model of a round."""
    run, recipe = place.run, place.run.recipe
    state = read_model(run.store, place.result("aggregate")["outputs"]["model_digest"])
    size, parameters = len(tensors_to_bytes(state)), sum(tensor.numel() for tensor in state.values())
    evaluated, names = place.result("evaluate")["outputs"], of_predictions(recipe.evaluation.metrics)
    groups = _client_groups(place)
    if recipe.evaluation.holdout is None or not evaluated["finite"]:
        return Analysis(size, parameters, groups=groups, gaps=_gaps(groups, names))
    windows = read_holdout(run, recipe)
    predictions = predict(recipe, state, windows)
    clusters, drawn_by = clusters_of(windows, recipe.inputs.window_size, recipe.inputs.stride)
    sample = sample_of(recipe, state, windows, predictions, clusters)
    defined = tuple(name for name in names if name in evaluated["metrics"])
    rng = np.random.default_rng(seed_sequence(recipe.seed, "intervals"))
    groups = groups or _groups(recipe, state, windows, predictions)
    return Analysis(
        size,
        parameters,
        len(windows.x),
        sample,
        drawn_by,
        intervals(defined, sample, level_of(recipe), rng),
        groups,
        _gaps(groups, names),
        _robustness(recipe, state, windows),
        _drift(place),
        latency(recipe, state, windows),
    )


def level_of(recipe: Recipe) -> float:
    """The level of all intervals."""
    return DEFAULT_LEVEL if recipe.evaluation.confidence is None else recipe.evaluation.confidence.level


def sample_of(
    recipe: Recipe, state: State, windows: Windows, predictions: Predictions, clusters: NDArray[np.int64]
) -> Sample:
    """Predictions as the bootstrap sees them."""
    losses = window_losses(recipe, state, windows) if "loss" in recipe.evaluation.metrics else None
    return Sample(recipe.model.output, windows.y, predictions.scores, recipe.evaluation.threshold, clusters, losses)


def _groups(recipe: Recipe, state: State, windows: Windows, predictions: Predictions) -> dict[str, dict[str, Group]]:
    names = of_predictions(recipe.evaluation.metrics)

    def measure_rows(rows: NDArray[np.int64]) -> Metrics:
        part = windows.take(rows)
        # A loss averages in its own way, so that of a group cannot be told from the scores.
        loss = predict(recipe, state, part).loss if "loss" in names else 0.0
        return measure_predictions(recipe, part, Predictions(predictions.scores[rows], loss))

    return by_group(recipe.evaluation.groups, names, windows, measure_rows)


def _client_groups(place: Place) -> dict[str, dict[str, Group]]:
    """In an evaluation, the groups of clients by fleet column; there are none in other kinds of job."""
    found: dict[str, dict[str, Group]] = {}
    if place.run.recipe.measuring is not None:
        for row in json.loads(place.file("aggregate", "groups")):
            group = Group(row["windows"], row["metrics"], row["undefined"])
            found.setdefault(row["column"], {})[row["value"]] = group
    return found


def _gaps(groups: dict[str, dict[str, Group]], names: tuple[str, ...]) -> dict[str, dict[str, Gap]]:
    return {column: apart for column, found in groups.items() if (apart := gaps(found, names))}


def _robustness(recipe: Recipe, state: State, windows: Windows) -> dict[str, Metrics]:
    asked = recipe.evaluation.robustness
    found: dict[str, Metrics] = {}
    for fault in asked.faults if asked is not None else ():
        x = faulty(windows.x, fault, asked.severity if asked is not None else 0.0, recipe.inputs, recipe.seed)
        found[fault] = measure(recipe, state, Windows(x, windows.y))
    return found


def _drift(place: Place) -> dict[str, dict[str, float]]:
    if place.run.recipe.evaluation.drift is None:
        return {}
    found: dict[str, dict[str, float]] = Place(place.run, 0).result("validate")["outputs"]["drift"]
    return found


def as_json(analysis: Analysis, metrics: tuple[str, ...]) -> dict[str, Any]:
    """The analysis for reports; a key is absent where nothing was asked for or nothing is defined."""
    shown = {
        **_curves(analysis.sample),
        "groups": plain(dict(analysis.groups)),
        "gaps": plain(dict(analysis.gaps)),
        "drift": analysis.drift,
        "intervals": plain(dict(analysis.intervals.found)),
        "robustness": {
            fault: {name: found.values[name] for name in metrics if name in found.values}
            for fault, found in analysis.robustness.items()
        },
    }
    found = {key: value for key, value in shown.items() if value}
    if "latency_p95" in analysis.latency:
        found["latency_ms_p95"] = analysis.latency["latency_p95"]
    return found | {"model_bytes": analysis.model_bytes}


def _curves(sample: Sample | None) -> dict[str, Any]:
    """Confusion matrix, ROC curve and calibration table, where labels and output allow them."""
    if sample is None or sample.y is None:
        return {}
    found: dict[str, Any] = {}
    if sample.output in ("binary_classification", "reconstruction_error") and len(np.unique(sample.y)) == 2:
        found["roc"] = _roc(sample)
    if sample.output in ("binary_classification", "multi_class"):
        from sklearn.metrics import confusion_matrix

        many = sample.scores.ndim == 2
        predicted = sample.scores.argmax(axis=1) if many else sample.scores >= sample.threshold
        labels = range(sample.scores.shape[1] if many else 2)
        found["confusion"] = confusion_matrix(sample.y, predicted, labels=labels).tolist()
        found["calibration"] = calibration_table(sample.y, sample.scores)
    return found


def _roc(sample: Sample) -> dict[str, list[float]]:
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(sample.y, sample.scores)
    kept = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), _ROC_POINTS)).round().astype(int))
    return {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist()}
