"""What a run will cost, known from its recipe alone."""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.tasks.architectures import parameter_count
from fedloom.tasks.memory import training_bytes
from fedloom.tasks.recipe import Recipe

_FLOAT = 4


@dataclass(frozen=True)
class Estimate:
    """Costs of a run; None where they depend on a Custom class.

    Attributes:
        parameters: Numbers in the model.
        bytes_per_client_and_round: Model down plus update up, float32.
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
    variates = 2 if recipe.training.algorithm == "SCAFFOLD" else 1
    moved = None if parameters is None else 2 * variates * parameters * _FLOAT
    cohort = recipe.selection.target
    return Estimate(
        parameters=parameters,
        bytes_per_client_and_round=moved,
        bytes_total=None if moved is None else moved * cohort * recipe.rounds,
        shards=-(-cohort // recipe.selection.shard_size),
        memory_per_shard_bytes=shard_memory(recipe),
    )


def shard_memory(recipe: Recipe) -> int | None:
    """Bytes of tensors in a training step; clients of a shard follow each other, so their number does not count."""
    return training_bytes(recipe.model, recipe.training)
