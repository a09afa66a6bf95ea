"""Step "measure": the clients of one shard say how well the model does on their own data."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks.client import DropoutError, receive
from fedloom.tasks.client_data import Windows
from fedloom.tasks.dropouts import answer_of
from fedloom.tasks.evaluate import measure_predictions, predict
from fedloom.tasks.model_store import model_key
from fedloom.tasks.models import State
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.select import shard_clients
from fedloom.tasks.step import Place, StepResult
from fedloom.tasks.train import read_order


def step(place: Place) -> StepResult:
    """Measure the model at every client of the shard, in the order of their ids.

    A client whose data cannot be read, or that is late, is a dropout with its reason. The figures of each client go
    into the store: engines see how many there are.
    """
    run, recipe = place.run, place.run.recipe
    order = read_order(place)
    state = receive(order, run.store.read(model_key(order.model_digest), expect=order.model_digest))
    limit = order.training.client_timeout_s
    figures: dict[str, dict[str, Any]] = {}
    dropouts: list[dict[str, str]] = []

    def measured(client: str) -> dict[str, Any]:
        windows = run.windows.read(run.fleet.data[run.fleet.rows[client]], run.fleet.root, order.inputs, limit)
        started = time.monotonic()
        found = client_figures(recipe, state, windows)
        if time.monotonic() - started > limit:
            raise DropoutError(f"late: measuring took more than {limit:g} s")
        return found

    for client in shard_clients(place):
        found = answer_of(client, dropouts, partial(measured, client))
        if found is not None:
            figures[client] = found
    stored = run.store.write_json(place.key(f"measure/shard-{place.shard:05d}.clients.json"), figures)
    samples = sum(found["windows"] for found in figures.values())
    return StepResult({"clients": len(figures), "dropouts": dropouts, "samples": samples}, {"clients": stored})


def client_figures(recipe: Recipe, state: State, windows: Windows) -> dict[str, Any]:
    """What one client says of a model, from its own data alone; JSON values.

    Returns:
        windows: How many it has. metrics, undefined: By name, the value or why there is none. confusion: Windows by
        label (row) and prediction (column), None where there are no classes or labels. finite: Whether the model's
        scores are numbers.

    Raises:
        DropoutError: when its labels are no classes of the model.
    """
    classes, y = recipe.model.classes, windows.y
    if y is not None and classes and (y.min() < 0 or y.max() >= classes):
        raise DropoutError(f"labels range from {y.min()} to {y.max()}, expected 0 to {classes - 1}")
    predictions = predict(recipe, state, windows)
    scores, metrics = predictions.scores, measure_predictions(recipe, windows, predictions)
    matrix = None
    if y is not None and classes and metrics.finite:
        found = scores.argmax(axis=1) if scores.ndim > 1 else (scores >= recipe.evaluation.threshold).astype(np.int64)
        matrix = confusion(y.astype(np.int64), found, classes).tolist()
    return {
        "windows": len(windows.x),
        "metrics": dict(metrics.values),
        "undefined": dict(metrics.undefined),
        "confusion": matrix,
        "finite": metrics.finite,
    }


def confusion(y: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Windows by label (row) and prediction (column), int64 [classes, classes]."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)
