"""Step "evaluate": measure the round's model on data that no client trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedloom.specs.canonical import sha256
from fedloom.tasks.client_data import ClientDataError, Windows
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.errors import RunError
from fedloom.tasks.measured import beside_clients
from fedloom.tasks.metrics import DRIFT, Metrics, compute, of_predictions
from fedloom.tasks.model_store import read_model, tensors_to_bytes
from fedloom.tasks.models import State, build_model, load_state, loss_function
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.seeds import seed_sequence, torch_seed
from fedloom.tasks.step import Place, Run, StepResult
from fedloom.tasks.window_spec import WindowSpec

_BATCH = 512


@dataclass(frozen=True)
class Predictions:
    """What a model says of windows: scores as `fedloom.tasks.metrics.compute` takes them, and the mean loss."""

    scores: NDArray[np.float64]
    loss: float

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers."""
        return bool(np.isfinite(self.scores).all() and np.isfinite(self.loss))


def step(place: Place) -> StepResult:
    """Compute the job's metrics on the holdout; without a holdout there are none, and the gate says so.

    Where clients have measured the model too, their values have the plain names.
    """
    return beside_clients(place, held_out(place))


def held_out(place: Place) -> StepResult:
    """The job's metrics on the holdout."""
    run = place.run
    digest = place.result("aggregate")["outputs"]["model_digest"]
    state = read_model(run.store, digest)
    found = {"model_digest": digest, "windows": 0, "holdout": None, "undefined": {}, "finite": True}
    metrics = _beside(place, state)
    if run.recipe.evaluation.holdout is not None:
        windows = read_holdout(run, run.recipe)
        measured = measure(run.recipe, state, windows)
        metrics = {**measured.values, **metrics}
        found |= {
            "windows": len(windows.x),
            "holdout": holdout_digest(windows),
            "undefined": dict(measured.undefined),
            "finite": measured.finite,
        }
    return StepResult({**found, "metrics": metrics})


def _beside(place: Place, state: State) -> dict[str, float]:
    """The job's metrics of the data and of the model itself, except those that no two measurements agree on."""
    names = place.run.recipe.evaluation.metrics
    values: dict[str, float] = {}
    if "model_bytes" in names:
        values["model_bytes"] = len(tensors_to_bytes(state))
    if "parameters" in names:
        values["parameters"] = sum(tensor.numel() for tensor in state.values())
    for name in sorted(DRIFT & set(names)):
        signals = Place(place.run, 0).result("validate")["outputs"]["drift"] or {}
        values[name] = max(one[name.removeprefix("drift_")] for one in signals.values())
    return values


def read_holdout(run: Run, recipe: Recipe) -> Windows:
    """The held-out windows, drawn as the job says.

    Args:
        run: The run.
        recipe: How they are read; that of the run, or of a champion with other inputs.

    Raises:
        RunError: when they cannot be read, or have labels that are no class of the model.
    """
    settings, limit = run.recipe.evaluation, run.recipe.training.client_timeout_s
    try:
        windows = run.windows.read(settings.holdout or "", run.folder, _with_columns(recipe), limit)
    except ClientDataError as error:
        raise RunError(f"the holdout {settings.holdout} cannot be read: {error}") from error
    # Of a reconstruction, the label says whether a window is an anomaly.
    classes = 2 if recipe.model.output == "reconstruction_error" else recipe.model.classes
    if windows.y is not None and classes and windows.y.max() >= classes:
        raise RunError(f"the holdout has label {windows.y.max()}; the model's classes are 0 to {classes - 1}")
    if settings.holdout_size is None or settings.holdout_size >= len(windows.x):
        return windows
    rng = np.random.default_rng(seed_sequence(run.recipe.seed, "holdout"))
    strata = [windows.columns[name].codes for name in settings.stratify_by]
    if settings.stratified and windows.y is not None:
        strata.insert(0, windows.y.astype(np.int64))
    return windows.take(_sample(strata, len(windows.x), settings.holdout_size, rng))


def _with_columns(recipe: Recipe) -> WindowSpec:
    asked = recipe.evaluation
    return replace(recipe.inputs, group_columns=tuple(dict.fromkeys((*asked.groups, *asked.stratify_by))))


def holdout_digest(windows: Windows) -> str:
    """SHA-256 of the held-out windows and labels; models are compared on equal data only."""
    labels = b"" if windows.y is None else windows.y.tobytes()
    return sha256(repr(windows.x.shape).encode() + windows.x.tobytes() + labels)


def measure(recipe: Recipe, state: State, windows: Windows) -> Metrics:
    """The job's metrics of predictions, for one model."""
    return measure_predictions(recipe, windows, predict(recipe, state, windows))


def measure_predictions(recipe: Recipe, windows: Windows, predictions: Predictions) -> Metrics:
    """The same, from predictions on these windows."""
    evaluation, names = recipe.evaluation, of_predictions(recipe.evaluation.metrics)
    if not predictions.finite:
        return Metrics({}, dict.fromkeys(names, "the model's scores are not finite"), finite=False)
    scores, loss = predictions.scores, predictions.loss
    return compute(names, recipe.model.output, windows.y, scores, evaluation.threshold, loss)


def predict(recipe: Recipe, state: State, windows: Windows) -> Predictions:
    """What a model says of windows."""
    with repeatable(recipe.threads, torch_seed(recipe.seed, "evaluate")):
        model = build_model(recipe.model)
        load_state(model, state)
        return Predictions(*_scores(recipe, model.eval(), windows))


@torch.no_grad()
def _scores(recipe: Recipe, model: torch.nn.Module, windows: Windows) -> tuple[NDArray[np.float64], float]:
    """Scores as `fedloom.tasks.metrics.compute` takes them, and the mean loss per window."""
    loss_of = loss_function(recipe.training)
    x, y = torch.from_numpy(windows.x), windows.y if windows.y is not None else np.empty(0, dtype=np.int64)
    parts: list[Any] = []
    loss = 0.0
    for start in range(0, len(x), _BATCH):
        batch = x[start : start + _BATCH]
        out = model(batch.clone())  # a custom network may change its input in place
        if recipe.model.output == "reconstruction_error":
            target = batch.flatten(1)
            parts.append((out - target).square().mean(dim=1))
        else:
            target = torch.from_numpy(y[start : start + _BATCH])
            parts.append(_probability(recipe.model.output, out))
        loss += float(loss_of(out, target)) * len(batch)
    return torch.cat(parts).to(torch.float64).numpy(), loss / len(x)


def _probability(output: str, out: torch.Tensor) -> torch.Tensor:
    if output == "regression":
        return out.squeeze(1)
    return out.softmax(dim=1) if output == "multi_class" else out.squeeze(1).sigmoid()


def _sample(strata: list[NDArray[np.int64]], count: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a sample, sorted; each combination of the strata keeps its share, rounded by largest remainders."""
    if not strata:
        return np.sort(rng.choice(count, size, replace=False))
    _, of, counts = np.unique(np.stack(strata), axis=1, return_inverse=True, return_counts=True)
    shares = size * counts / count
    quota = np.floor(shares).astype(int)
    quota[np.argsort(quota - shares, kind="stable")[: size - quota.sum()]] += 1
    rows = [np.flatnonzero(of.reshape(-1) == stratum) for stratum in range(len(counts))]
    return np.sort(np.concatenate([rng.choice(one, n, replace=False) for one, n in zip(rows, quota, strict=True)]))
