"""Step "evaluate": measure the round's model on data that no client trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedloom.specs.canonical import sha256
from fedloom.tasks.client_data import ClientDataError, Windows
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.errors import RunError
from fedloom.tasks.metrics import Metrics, compute
from fedloom.tasks.model_store import read_model
from fedloom.tasks.models import State, build_model, load_state, loss_function
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.seeds import seed_sequence, torch_seed
from fedloom.tasks.step import Place, Run, StepResult

_BATCH = 512


def step(place: Place) -> StepResult:
    """Compute the job's metrics on the holdout; without a holdout there are none, and the gate says so."""
    run = place.run
    digest = place.result("aggregate")["outputs"]["model_digest"]
    if run.recipe.evaluation.holdout is None:
        return StepResult(
            {"model_digest": digest, "windows": 0, "metrics": {}, "undefined": {}, "finite": True, "holdout": None}
        )
    windows, state = read_holdout(run, run.recipe), read_model(run.store, digest)
    holdout, metrics = holdout_digest(windows), measure(run.recipe, state, windows)
    return StepResult(
        {
            "model_digest": digest,
            "windows": len(windows.x),
            "holdout": holdout,
            "metrics": dict(metrics.values),
            "undefined": dict(metrics.undefined),
            "finite": metrics.finite,
        }
    )


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
        windows = run.windows.read(settings.holdout or "", run.folder, recipe.inputs, limit)
    except ClientDataError as error:
        raise RunError(f"the holdout cannot be read: {error}") from error
    classes = recipe.model.classes
    if windows.y is not None and classes and windows.y.max() >= classes:
        raise RunError(f"the holdout has label {windows.y.max()}; the model's classes are 0 to {classes - 1}")
    if settings.holdout_size is None or settings.holdout_size >= len(windows.x):
        return windows
    rng = np.random.default_rng(seed_sequence(run.recipe.seed, "holdout"))
    rows = _sample(windows.y if settings.stratified else None, len(windows.x), settings.holdout_size, rng)
    return Windows(windows.x[rows], None if windows.y is None else windows.y[rows])


def holdout_digest(windows: Windows) -> str:
    """SHA-256 of the held-out windows and labels; models are compared on equal data only."""
    labels = b"" if windows.y is None else windows.y.tobytes()
    return sha256(repr(windows.x.shape).encode() + windows.x.tobytes() + labels)


def measure(recipe: Recipe, state: State, windows: Windows) -> Metrics:
    """The job's metrics for one model."""
    with repeatable(recipe.threads, torch_seed(recipe.seed, "evaluate")):
        model = build_model(recipe.model)
        load_state(model, state)
        scores, loss = _scores(recipe, model.eval(), windows)
    if not np.isfinite(scores).all() or not np.isfinite(loss):
        reason = "the model's scores are not finite"
        return Metrics({}, dict.fromkeys(recipe.evaluation.metrics, reason), finite=False)
    evaluation = recipe.evaluation
    return compute(evaluation.metrics, recipe.model.output, windows.y, scores, evaluation.threshold, loss)


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


def _sample(y: NDArray[Any] | None, count: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a sample, sorted; with labels, each keeps its share, rounded by largest remainders."""
    if y is None:
        return np.sort(rng.choice(count, size, replace=False))
    labels, counts = np.unique(y, return_counts=True)
    shares = size * counts / count
    quota = np.floor(shares).astype(int)
    quota[np.argsort(quota - shares, kind="stable")[: size - quota.sum()]] += 1
    drawn = [rng.choice(np.flatnonzero(y == label), n, replace=False) for label, n in zip(labels, quota, strict=True)]
    return np.sort(np.concatenate(drawn))
