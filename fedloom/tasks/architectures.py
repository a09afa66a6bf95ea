"""The shapes of the built-in networks, known without building them.

One place says which layers an architecture has; `fedloom.tasks.models` builds those layers, and the compiler
counts their parameters without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedloom.tasks.recipe import ModelRecipe, Setting

DEFAULTS: Mapping[str, Mapping[str, Setting]] = {
    "MLP": {"hidden_dims": (64, 32), "dropout": 0.0, "activation": "relu"},
    "LSTM": {"hidden_dim": 64, "num_layers": 1, "dropout": 0.0, "bidirectional": False},
    "Autoencoder": {"hidden_dims": (), "latent_dim": 32, "dropout": 0.0, "activation": "relu"},
}
"""The settings that each built-in architecture reads, and their values when a spec leaves them out."""


@dataclass(frozen=True)
class Dense:
    """A fully connected stack: widths from input to output, an activation between layers."""

    widths: tuple[int, ...]


@dataclass(frozen=True)
class Recurrent:
    """An LSTM over time and a linear layer on its mean output."""

    channels: int
    hidden: int
    layers: int
    bidirectional: bool
    outputs: int


Network = Dense | Recurrent


def network(model: ModelRecipe) -> Network:
    """The layers of a built-in architecture.

    Raises:
        KeyError: for an architecture that is not built in (Custom among them).
    """
    builders: dict[str, Callable[[ModelRecipe], Network]] = {
        "MLP": _mlp,
        "LSTM": _lstm,
        "Autoencoder": _autoencoder,
    }
    return builders[model.architecture](model)


def outputs(model: ModelRecipe) -> int:
    """Numbers that the network gives for a window."""
    if model.output == "multi_class":
        return model.classes
    return model.window_size * model.channels if model.output == "reconstruction_error" else 1


def parameter_count(model: ModelRecipe) -> int | None:
    """Parameters of the network; None for Custom, which is known only when it is built."""
    if model.architecture == "Custom":
        return None
    layers = network(model)
    if isinstance(layers, Dense):
        return sum((a + 1) * b for a, b in zip(layers.widths, layers.widths[1:], strict=False))
    directions = 2 if layers.bidirectional else 1
    count, width = 0, layers.channels
    for _ in range(layers.layers):
        count += directions * 4 * layers.hidden * (width + layers.hidden + 2)
        width = directions * layers.hidden
    return count + (width + 1) * layers.outputs


def _mlp(model: ModelRecipe) -> Network:
    hidden = integers(model.settings["hidden_dims"])
    return Dense((model.window_size * model.channels, *hidden, outputs(model)))


def _lstm(model: ModelRecipe) -> Network:
    settings = model.settings
    return Recurrent(
        channels=model.channels,
        hidden=integers(settings["hidden_dim"])[0],
        layers=integers(settings["num_layers"])[0],
        bidirectional=bool(settings["bidirectional"]),
        outputs=outputs(model),
    )


def _autoencoder(model: ModelRecipe) -> Network:
    width = model.window_size * model.channels
    hidden = integers(model.settings["hidden_dims"])
    latent = integers(model.settings["latent_dim"])
    return Dense((width, *hidden, *latent, *reversed(hidden), width))


def integers(value: Setting) -> tuple[int, ...]:
    """A setting as whole numbers: one, or several."""
    items = value if isinstance(value, tuple) else (value,)
    return tuple(int(item) for item in items if item is not None)
