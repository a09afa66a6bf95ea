"""What the server makes of a round's mean update: federated optimisation with an optimiser at the server.

The mean update Δ takes the place of a negative gradient (Reddi et al. 2021, "Adaptive federated optimization",
algorithm 2; Hsu et al. 2019, "Measuring the effects of non-identical data distribution", for momentum):

SGD      m ← β₁ m + Δ               x ← x + η m              FedAvgM; with β₁ = 0 and η = 1, FedAvg
AdaGrad  v ← v + Δ²
Adam     v ← β₂ v + (1 - β₂) Δ²
Yogi     v ← v - (1 - β₂) Δ² sign(v - Δ²)
the last three:  m ← β₁ m + (1 - β₁) Δ,  x ← x + η m / (√v + τ)

m starts at 0 and v at τ², as the paper asks (v ≥ τ²); there is no bias correction, as there is none in the paper. The
rules see nothing but the mean, so they go with masks and noise: what follows from a private result is private.
"""

from __future__ import annotations

import torch

from fedloom.tasks.models import State
from fedloom.tasks.recipe import ServerOptimizerRecipe


def first_state(recipe: ServerOptimizerRecipe, model: State) -> State:
    """The optimiser's state before the first round: m/NAME, and v/NAME where the rule has it, float64."""
    state = {f"m/{name}": torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in model.items()}
    if recipe.name != "SGD":
        square = recipe.tau**2
        state |= {f"v/{name}": torch.full_like(t, square, dtype=torch.float64) for name, t in model.items()}
    return state


def server_step(recipe: ServerOptimizerRecipe, state: State, mean: State) -> tuple[State, State]:
    """One round.

    Args:
        recipe: The rule.
        state: From `first_state`, or of the round before.
        mean: The mean update, float64.

    Returns:
        What to add to the model, float64, and the state for the next round.
    """
    change: State = {}
    after: State = {}
    for name, delta in sorted(mean.items()):
        share = 1.0 if recipe.name == "SGD" else 1.0 - recipe.beta1
        momentum = recipe.beta1 * state[f"m/{name}"] + share * delta
        after[f"m/{name}"] = momentum
        if recipe.name == "SGD":
            change[name] = recipe.learning_rate * momentum
            continue
        square = _second_moment(recipe, state[f"v/{name}"], delta.square())
        after[f"v/{name}"] = square
        change[name] = recipe.learning_rate * momentum / (square.sqrt() + recipe.tau)
    return change, after


def _second_moment(recipe: ServerOptimizerRecipe, before: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    if recipe.name == "AdaGrad":
        return before + square
    if recipe.name == "Adam":
        return recipe.beta2 * before + (1.0 - recipe.beta2) * square
    return before - (1.0 - recipe.beta2) * square * torch.sign(before - square)
