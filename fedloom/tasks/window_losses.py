"""The loss of each held-out window, so that a mean loss can be resampled."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedloom.tasks.client_data import Windows
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.models import State, build_model, load_state, loss_function
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.seeds import torch_seed

_BATCH = 512


@torch.no_grad()
def window_losses(recipe: Recipe, state: State, windows: Windows) -> NDArray[np.float64]:
    """Losses and their weights in the mean, [N, 2].

    The weights are 1 but for CrossEntropyLoss and NLLLoss with class weights, which average by them.
    """
    loss_of = loss_function(recipe.training)

    def one(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return loss_of(out[None], target[None])

    each = torch.func.vmap(one)
    parts = []
    with repeatable(recipe.threads, torch_seed(recipe.seed, "evaluate")):
        model = build_model(recipe.model)
        load_state(model, state)
        model.eval()
        for start in range(0, len(windows.x), _BATCH):
            x = torch.from_numpy(windows.x[start : start + _BATCH])
            target = x.flatten(1) if windows.y is None or recipe.model.output == "reconstruction_error" else (
                torch.from_numpy(windows.y[start : start + _BATCH])
            )  # fmt: skip
            parts.append(each(model(x.clone()), target))
    losses = torch.cat(parts).to(torch.float64).numpy()
    weights = np.ones_like(losses)
    weighted = recipe.training.loss in ("CrossEntropyLoss", "NLLLoss") and recipe.training.class_weights
    if weighted and windows.y is not None:
        weights = np.asarray(recipe.training.class_weights, dtype=np.float64)[windows.y]
    return np.stack([losses, weights], axis=1)
