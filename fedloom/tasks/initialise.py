"""Step "initialise": draw the model that the first round starts from."""

from __future__ import annotations

from fedloom.tasks.determinism import repeatable
from fedloom.tasks.model_store import write_model
from fedloom.tasks.models import build_model, float_state, rehearse
from fedloom.tasks.seeds import torch_seed
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Write the initial model; its parameters follow from the job's seed alone.

    Raises:
        ConfigurationError: when the network cannot be built, or not be trained as the job says.
    """
    recipe = place.run.recipe
    with repeatable(recipe.threads, torch_seed(recipe.seed, "initialise")):
        model = build_model(recipe.model)
        state = float_state(model)
        rehearse(model, recipe.model, recipe.training)
    stored = write_model(place.run.store, state)
    parameters = sum(tensor.numel() for tensor in state.values())
    return StepResult(
        {"model_digest": stored.sha256, "model_bytes": stored.bytes, "parameters": parameters},
        {"model": stored},
    )
