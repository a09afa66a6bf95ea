"""How long a model takes for one window on this machine: a measurement, never part of a digest."""

from __future__ import annotations

import time

import numpy as np
import torch

from fedloom.tasks.client_data import Windows
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.models import State, build_model, load_state
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.seeds import torch_seed

_WARM_UP = 10
_CALLS = 200
_SECONDS = 2.0


@torch.no_grad()
def latency(recipe: Recipe, state: State, windows: Windows) -> dict[str, float]:
    """Percentiles of the time of one window's inference, in milliseconds: latency_p50, latency_p95 and latency_p99.

    Up to 200 windows go through the network one by one, on one thread, for two seconds at most.
    """
    with repeatable(recipe.threads, torch_seed(recipe.seed, "latency")):
        model = build_model(recipe.model)
        load_state(model, state)
        model.eval()
        seconds: list[float] = []
        started = time.perf_counter()
        for call in range(_WARM_UP + _CALLS):
            row = call % len(windows.x)
            window = torch.from_numpy(windows.x[row : row + 1].copy())
            before = time.perf_counter()
            model(window)
            seconds.append(time.perf_counter() - before)
            if seconds[_WARM_UP:] and time.perf_counter() - started > _SECONDS:
                break
    p50, p95, p99 = np.percentile(seconds[_WARM_UP:], [50, 95, 99]) * 1000
    return {"latency_p50": float(p50), "latency_p95": float(p95), "latency_p99": float(p99)}
