"""Memory that training takes, and that this process may still have."""

from __future__ import annotations

from pathlib import Path

from fedloom.tasks.architectures import Attention, Convolutional, Dense, network, parameter_count
from fedloom.tasks.recipe import ModelRecipe, TrainingRecipe

CGROUP = Path("/sys/fs/cgroup")
_FLOAT = 4
_DOUBLE = 8


def training_bytes(
    model: ModelRecipe, training: TrainingRecipe, parameters: int | None = None, windows: int | None = None
) -> int | None:
    """Bytes of tensors in a training step: model, received model, gradient, optimiser, update, sum, activations.

    Args:
        model: The network.
        training: How it is trained.
        parameters: Their number, where it is known from the network itself.
        windows: The client's windows, where known: a batch has no more.

    Returns:
        None for a custom class whose parameters are not known; its activations never are, and do not count.
    """
    parameters = parameter_count(model) if parameters is None else parameters
    if parameters is None:
        return None
    copies = 4 + _optimizer_copies(training)
    copies += 8 if training.algorithm == "SCAFFOLD" else 0  # own, server's, shift, new; sum and change, double
    batch = training.batch_size if windows is None else min(windows, training.batch_size)
    kept = 0 if model.architecture == "Custom" else batch * activations(model)
    return parameters * (copies * _FLOAT + _DOUBLE) + 2 * kept * _FLOAT


def available_bytes() -> int:
    """Memory that this process may still take: what the machine has left, and what its control group allows.

    What a control group uses includes cached files; those that it would give up at once are not counted.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit_file, use_file, stat_file in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        limit, use = _number(CGROUP / limit_file), _number(CGROUP / use_file)
        if limit is not None and use is not None:
            free = min(free, limit - use + _cached(CGROUP / stat_file))
    return max(free, 0)


def shortage(need: int) -> str | None:
    """Why so many bytes cannot be had; None where they can."""
    free = available_bytes()
    return None if need <= free else f"needs {need / 1e9:.3g} GB of memory, {free / 1e9:.3g} GB are free"


def _number(path: Path) -> int | None:
    """A file's number; None where there is none (no such group, or no limit: "max")."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cached(path: Path) -> int:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in ("inactive_file", "total_inactive_file"))


def _optimizer_copies(training: TrainingRecipe) -> int:
    """Copies of the parameters that an optimiser keeps."""
    settings = dict(training.optimizer_settings)
    if training.optimizer == "Adam":
        return 2 + bool(settings.get("amsgrad"))
    if training.optimizer == "RMSprop":
        return 1 + bool(settings.get("momentum")) + bool(settings.get("centered"))
    return 1 if training.optimizer == "AdaGrad" or settings.get("momentum") else 0


def activations(model: ModelRecipe) -> int:
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
