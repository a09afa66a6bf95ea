"""What a run will cost, known from its recipe alone."""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.tasks.architectures import Attention, Convolutional, Dense, network, parameter_count
from fedloom.tasks.recipe import ModelRecipe, Recipe

_FLOAT = 4
_DOUBLE = 8
_OPTIMIZER_COPIES = {"SGD": 1, "AdaGrad": 1, "RMSprop": 2, "Adam": 2}
"""Copies of the parameters that an optimiser keeps, at most."""


@dataclass(frozen=True)
class Estimate:
    """Costs of a run; None where they depend on a Custom class.

    Attributes:
        parameters: Numbers in the model.
        bytes_per_client_and_round: Model down, float32, and update up: float32, or an element of the ring under masks.
        bytes_total: Over all rounds and the whole cohort.
        shards: Shards of a round.
        memory_per_shard_bytes: Tensors of one training step, without Python and torch themselves
            and without the client's data.
    """

    parameters: int | None
    bytes_per_client_and_round: int | None
    bytes_total: int | None
    shards: int
    memory_per_shard_bytes: int | None


def estimate(recipe: Recipe) -> Estimate:
    """Estimate the costs of a run that goes through all its rounds with full cohorts."""
    parameters = parameter_count(recipe.model)
    up = _FLOAT if recipe.masking is None else recipe.masking.ring_bits // 8
    moved = None if parameters is None else parameters * (_FLOAT + up)
    cohort = recipe.selection.target
    return Estimate(
        parameters=parameters,
        bytes_per_client_and_round=moved,
        bytes_total=None if moved is None else moved * cohort * recipe.rounds,
        shards=-(-cohort // recipe.selection.shard_size),
        memory_per_shard_bytes=shard_memory(recipe),
    )


def shard_memory(recipe: Recipe) -> int | None:
    """Bytes of tensors in a training step: model, received model, gradient, optimiser, update, sum, activations.

    Clients of a shard follow each other, so their number does not count.
    """
    parameters = parameter_count(recipe.model)
    if parameters is None:
        return None
    copies = 4 + _OPTIMIZER_COPIES[recipe.training.optimizer]
    batch = recipe.training.batch_size * _activations(recipe.model)
    return parameters * (copies * _FLOAT + _DOUBLE) + 2 * batch * _FLOAT


def _activations(model: ModelRecipe) -> int:
    """Numbers kept for the backward pass of one window."""
    layers = network(model)
    if isinstance(layers, Dense):
        return sum(layers.widths)
    if isinstance(layers, Convolutional):
        return model.window_size * sum(layers.channels) * (5 if layers.residual else 2)
    if isinstance(layers, Attention):
        weights = layers.heads * model.window_size
        return model.window_size * layers.layers * (14 * layers.width + 2 * weights)
    directions = 2 if layers.bidirectional else 1
    return model.window_size * (model.channels + layers.layers * directions * 6 * layers.hidden)
