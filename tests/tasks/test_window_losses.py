"""The losses of windows are those whose mean is the metric."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedloom.tasks.evaluate import predict, read_holdout
from fedloom.tasks.model_store import read_model
from fedloom.tasks.step import Run, run_step
from fedloom.tasks.window_losses import window_losses


@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss", "BCELoss"])
def test_the_mean_loss_of_the_windows_is_the_loss(make_run: Callable[..., Run], loss: str) -> None:
    many = loss in ("CrossEntropyLoss", "NLLLoss")
    output = {"type": "multi_class", "labels": [0, 1]} if many else "binary_classification"
    settings = {"learning_rate": 0.01, "optimizer": "Adam", "loss_function": loss, "class_weights": [1.0, 5.0]}
    run = make_run(output_schema=output, hyperparameters=settings)
    run_step(run, "validate")
    state = read_model(run.store, run_step(run, "initialise")["model_digest"])
    windows = read_holdout(run, run.recipe)
    found = window_losses(run.recipe, state, windows)
    assert found.shape == (len(windows.x), 2)
    mean = (found[:, 0] * found[:, 1]).sum() / found[:, 1].sum()
    assert mean == pytest.approx(predict(run.recipe, state, windows).loss, rel=1e-5)
