"""What a run will cost, known from its recipe alone."""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.tasks.architectures import parameter_count
from fedloom.tasks.memory import activations, training_bytes
from fedloom.tasks.recipe import Recipe

_FLOAT = 4
_DOUBLE = 8
MEASURED_AT_ONCE = 512
"""Windows that a measurement scores in one batch."""


@dataclass(frozen=True)
class Estimate:
    """Costs of a run; None where they depend on a Custom class.

    Attributes:
        parameters: Numbers in the model.
        bytes_per_client_and_round: Model down (float32), update up (float32, or an element of the ring under masks), or
            both.
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
    down = 0 if recipe.kind == "aggregate" else _FLOAT * variates
    up = (
        0
        if recipe.kind == "evaluate"
        else _FLOAT * variates
        if recipe.masking is None
        else recipe.masking.ring_bits // 8
    )
    moved = None if parameters is None else parameters * (down + up)
    cohort = recipe.selection.target
    return Estimate(
        parameters=parameters,
        bytes_per_client_and_round=moved,
        bytes_total=None if moved is None else moved * cohort * recipe.rounds,
        shards=-(-cohort // recipe.selection.shard_size),
        memory_per_shard_bytes=_SHARD_MEMORY[recipe.kind](recipe),
    )


def shard_memory(recipe: Recipe) -> int | None:
    """Bytes of tensors in a training step; clients of a shard follow each other, so their number does not count.

    It does where their updates are kept one by one.
    """
    need, parameters = training_bytes(recipe.model, recipe.training), parameter_count(recipe.model)
    if need is None or parameters is None or not recipe.aggregation.single_updates:
        return need
    return need + parameters * (recipe.selection.shard_size * _FLOAT - _DOUBLE)


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
    return 2 * parameters * _FLOAT + MEASURED_AT_ONCE * activations(recipe.model) * _FLOAT


_SHARD_MEMORY = {"train": shard_memory, "evaluate": measure_memory, "aggregate": collect_memory}
"""By kind of job, the memory of what it does with a shard of clients."""
