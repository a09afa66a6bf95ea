"""Updates made of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fedloom.tasks.aggregation.updates import Update
from fedloom.tasks.models import State
from fedloom.tasks.recipe import AggregationRecipe, RobustRecipe

METHODS = ("median", "trimmed_mean", "krum", "multi_krum", "bulyan")


def update(client: int, values: Any, **changes: Any) -> Update:
    """An update of two tensors: the last value is alone in one of its own."""
    flat = torch.tensor(np.asarray(values, dtype=np.float32))
    given = {"weight": 1.0, "samples": 10, "loss": 0.5, "loss_before": None, "round": 1} | changes
    return Update(f"c{client:03d}", {"a": flat[:-1], "b": flat[-1:].reshape(())}, **given)


def updates(matrix: Any, **changes: Any) -> list[Update]:
    """One update a row."""
    return [update(i, row, **changes) for i, row in enumerate(np.asarray(matrix))]


def flat(state: State) -> np.ndarray:
    return np.concatenate([state[name].numpy().ravel() for name in sorted(state)])


def recipe(weights: str = "num_samples", **changes: Any) -> AggregationRecipe:
    return AggregationRecipe(weights=weights, quorum=1, **changes)


def robust(
    method: str, hostile: int | None = None, closest: int | None = None, trim_ratio: float = 0.2
) -> RobustRecipe:
    return RobustRecipe(method, hostile, closest, trim_ratio)
