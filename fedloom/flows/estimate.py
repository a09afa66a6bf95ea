"""What a run will cost, known from its recipe alone."""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.tasks.architectures import Attention, Convolutional, Dense, network, parameter_count
from fedloom.tasks.recipe import ModelRecipe, Recipe

_FLOAT = 4
_DOUBLE = 8
MEASURED_AT_ONCE = 512
"""Windows that a measurement scores in one batch."""
_OPTIMIZER_COPIES = {"SGD": 1, "AdaGrad": 1, "RMSprop": 2, "Adam": 2}
"""Copies of the parameters that an optimiser keeps, at most."""


@dataclass(frozen=True)
class Estimate:
    """Costs of a run; None where they depend on a Custom class.

    Attributes:
        parameters: Numbers in the model.
        bytes_per_client_and_round: Model down, update up, or both, float32.
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
    ways = 2 if recipe.kind == "train" else 1
    variates = 2 if recipe.training.algorithm == "SCAFFOLD" else 1
    moved = None if parameters is None else ways * variates * parameters * _FLOAT
    cohort = recipe.selection.target
    return Estimate(
        parameters=parameters,
        bytes_per_client_and_round=moved,
        bytes_total=None if moved is None else moved * cohort * recipe.rounds,
        shards=-(-cohort // recipe.selection.shard_size),
        memory_per_shard_bytes=_SHARD_MEMORY[recipe.kind](recipe),
    )


def shard_memory(recipe: Recipe) -> int | None:
    """Bytes of tensors in a training step: model, received model, gradient, optimiser, update, sum, activations.

    Clients of a shard follow each other, so their number does not count, unless their updates are kept one by one.
    """
    parameters = parameter_count(recipe.model)
    if parameters is None:
        return None
    kept = recipe.selection.shard_size * _FLOAT if recipe.aggregation.single_updates else _DOUBLE
    copies = 4 + _OPTIMIZER_COPIES[recipe.training.optimizer]
    copies += 8 if recipe.training.algorithm == "SCAFFOLD" else 0  # own, server's, shift, new; sum and change, double
    batch = recipe.training.batch_size * _activations(recipe.model)
    return parameters * (copies * _FLOAT + kept) + 2 * batch * _FLOAT


def collect_memory(recipe: Recipe) -> int | None:
    """Bytes of tensors in a collecting step: the model, and the updates of the shard, as read and as written."""
    parameters = parameter_count(recipe.model)
    return None if parameters is None else parameters * _FLOAT * (1 + 3 * recipe.selection.shard_size)


def aggregate_memory(recipe: Recipe) -> int | None:
    """Bytes of tensors in an aggregation that compares single updates; None where sums come in, or it is unknown."""
    parameters = parameter_count(recipe.model)
    if parameters is None or not recipe.single_updates:
        return None
    # The updates and their bytes; the model, a centre, the mean, the server's state and steps between them.
    return parameters * (2 * recipe.selection.target * _FLOAT + 8 * _DOUBLE)


def measure_memory(recipe: Recipe) -> int | None:
    """Bytes of tensors in a measuring step: the model as received and as loaded, and the activations of a batch."""
    parameters = parameter_count(recipe.model)
    if parameters is None:
        return None
    return 2 * parameters * _FLOAT + MEASURED_AT_ONCE * _activations(recipe.model) * _FLOAT


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


_SHARD_MEMORY = {"train": shard_memory, "evaluate": measure_memory, "aggregate": collect_memory}
"""By kind of job, the memory of what it does with a shard of clients."""
