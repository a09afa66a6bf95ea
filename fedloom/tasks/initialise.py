"""Step "initialise": draw the model that the first round starts from, or take a trained one."""

from __future__ import annotations

from torch import nn

from fedloom.tasks.determinism import repeatable
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.model_source import resolve
from fedloom.tasks.model_store import read_model, write_model
from fedloom.tasks.models import build_model, float_state, load_state, rehearse
from fedloom.tasks.seeds import torch_seed
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Write the initial model; its parameters follow from the job's seed alone, or are those of a trained model.

    Which model a source named is settled here: the result keeps its digest.

    Raises:
        ConfigurationError: when the network cannot be built, or not be trained as the job says, or the trained model
            is not there or of another network.
    """
    recipe = place.run.recipe
    with repeatable(recipe.threads, torch_seed(recipe.seed, "initialise")):
        model = build_model(recipe.model)
        source_digest = None if recipe.model_source is None else _take(place, model, recipe.model_source)
        state = float_state(model)
        rehearse(model, recipe.model, recipe.training)
    stored = write_model(place.run.store, state)
    parameters = sum(tensor.numel() for tensor in state.values())
    return StepResult(
        {
            "model_digest": stored.sha256,
            "model_bytes": stored.bytes,
            "parameters": parameters,
            "source_digest": source_digest,
        },
        {"model": stored},
    )


def _take(place: Place, model: nn.Module, source: str) -> str:
    """Put the parameters of a trained model into a network; the digest of what was found."""
    digest = resolve(place.run, source)
    try:
        load_state(model, read_model(place.run.store, digest))
    except ConfigurationError as error:
        raise ConfigurationError(f"model_source {source}: {error}") from error
    return digest
