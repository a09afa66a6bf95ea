"""What DP-SGD costs, as ratios in one run: to plain SGD, and to Opacus' default.

Run it with: python benchmarks/dp_sgd.py, in an environment that has fedloom and opacus (`pip install opacus`); without
opacus its column is left out, by name. One epoch of the example's network on 380 windows, batches of 32.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from fedloom.tasks.models import build_model
from fedloom.tasks.privacy.dp_sgd import DpSgd, poisson_batches, private_gradient
from fedloom.tasks.recipe import ModelRecipe

WINDOWS, BATCH, TIMES = 380, 32, 15
RATE = BATCH / WINDOWS
STEPS = round(1 / RATE)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    x, y = torch.randn(WINDOWS, 128, 6), torch.randint(0, 2, (WINDOWS,))
    epochs: dict[str, Callable[[], None]] = {"plain": plain(x, y), "fedloom, DP-SGD": ours(x, y)}
    try:
        epochs["Opacus, DP-SGD"] = opacus(x, y)
    except ImportError:
        print("Opacus is left out: pip install opacus")
    for epoch in epochs.values():
        epoch()
    times = {name: [] for name in epochs}
    for _ in range(TIMES):  # in turns, so that a busy moment hits all alike
        for name, epoch in epochs.items():
            start = time.process_time()
            epoch()
            times[name].append(time.process_time() - start)
    base = statistics.median(times["fedloom, DP-SGD"])
    for name, each in times.items():
        print(f"{name:<18} {statistics.median(each) / base:5.2f} × fedloom's DP-SGD")


def network() -> nn.Module:
    settings = (("activation", "relu"), ("dropout", 0.0), ("hidden_dims", (64, 32)))
    return build_model(ModelRecipe("MLP", None, settings, 128, 6, "binary_classification", 2))


def plain(x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    model, measure = network(), nn.BCEWithLogitsLoss()
    optimise = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> None:
        for rows in torch.split(torch.randperm(WINDOWS), BATCH):
            optimise.zero_grad()
            measure(model(x[rows]).squeeze(1), y[rows].float()).backward()
            optimise.step()

    return epoch


def ours(x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    model, measure, rng = network(), nn.BCEWithLogitsLoss(reduction="none"), np.random.default_rng(0)
    optimise = torch.optim.Adam(model.parameters(), lr=1e-3)
    settings = DpSgd(1.0, 1.0, RATE, STEPS)

    def losses(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        each: torch.Tensor = measure(out.squeeze(1), target.float())
        return each

    def epoch() -> None:
        for drawn in poisson_batches(WINDOWS, RATE, STEPS, rng):
            rows = torch.from_numpy(drawn)
            private_gradient(model, losses, x[rows], y[rows], settings, BATCH, rng)
            optimise.step()

    return epoch


def opacus(x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    from opacus import PrivacyEngine

    model, measure = network(), nn.BCEWithLogitsLoss()
    optimise = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH)
    made: tuple[Any, Any, Any] = PrivacyEngine().make_private(
        module=model, optimizer=optimise, data_loader=data, noise_multiplier=1.0, max_grad_norm=1.0
    )
    private, stepper, batches = made

    def epoch() -> None:
        for some_x, some_y in batches:
            stepper.zero_grad()
            measure(private(some_x).squeeze(1), some_y.float()).backward()
            stepper.step()

    return epoch


if __name__ == "__main__":
    main()
