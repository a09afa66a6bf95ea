"""Optimisers of the server, against the numbers of Flower's and against PyTorch's SGD."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedloom.tasks.aggregation.server import first_state, server_step
from fedloom.tasks.models import State
from fedloom.tasks.recipe import ServerOptimizerRecipe

DELTAS = [[0.5, -0.25, 0.003], [0.1, 0.4, -0.002], [-0.3, 0.05, 0.0]]
FLOWER = {
    "AdaGrad": [
        [0.09980019999979994, -0.09960079999680005, 0.07207592200561352],
        [0.019573189689962023, 0.0846202456808125, -0.04217934441190252],
        [-0.0506236134397382, 0.010518726735925243, 0.0],
    ],
    "Adam": [
        [0.07277604961646711, -0.0713360606114537, 0.01092264646931973],
        [0.06758246923684363, 0.023130377678049596, 0.0021681337311960647],
        [0.018841595256546606, 0.024878039042032896, 0.0017756949214424722],
    ],
    "Yogi": [
        [0.09801999800039995, -0.09607996802557439, 0.014676883630352133],
        [0.10576923076923084, 0.03632174507172947, 0.0033930928378036462],
        [0.03240858145754255, 0.04283233873933101, 0.0030537835540229707],
    ],
}
"""What FedAdagrad, FedAdam and FedYogi of flwr 1.41.0 (flwr.serverapp.strategy) add to a model in three rounds,
with eta 0.1, tau 0.001, betas 0.9 and 0.99 (0 for FedAdagrad), and v_t set to tau² before the first round, as in the
paper; Flower's own is 0."""


def run(recipe: ServerOptimizerRecipe, deltas: list[list[float]]) -> list[np.ndarray]:
    state, changes = first_state(recipe, {"x": torch.zeros(3)}), []
    for delta in deltas:
        mean: State = {"x": torch.tensor(delta, dtype=torch.float64)}
        change, state = server_step(recipe, state, mean)
        changes.append(change["x"].numpy())
    return changes


@pytest.mark.parametrize("name", FLOWER)
def test_the_rules_are_flowers(name: str) -> None:
    recipe = ServerOptimizerRecipe(name, 0.1, 0.0 if name == "AdaGrad" else 0.9, 0.99, 0.001)
    for number, (ours, theirs) in enumerate(zip(run(recipe, DELTAS), FLOWER[name], strict=True), 1):
        # Flower corrects Adam's bias, by the number of the round plus one; the paper does not.
        bias = math.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1)) if name == "Adam" else 1.0
        np.testing.assert_allclose(ours * bias, theirs, rtol=1e-9, atol=1e-15)


def test_momentum_is_that_of_pytorch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    theirs = torch.optim.SGD([parameter], lr=0.7, momentum=0.9)
    for delta, change in zip(DELTAS, run(ServerOptimizerRecipe("SGD", 0.7, 0.9, 0.0, 0.0), DELTAS), strict=True):
        before = parameter.detach().clone()
        parameter.grad = -torch.tensor(delta, dtype=torch.float64)
        theirs.step()
        np.testing.assert_allclose(change, (parameter.detach() - before).numpy(), rtol=1e-12, atol=1e-15)


def test_without_momentum_and_at_full_step_it_is_the_mean() -> None:
    for delta, change in zip(DELTAS, run(ServerOptimizerRecipe("SGD", 1.0, 0.0, 0.0, 0.0), DELTAS), strict=True):
        assert change.tolist() == delta
