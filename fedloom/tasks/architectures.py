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
    "CNN": {"num_channels": (32, 64), "kernel_size": 5, "dropout": 0.0, "activation": "relu"},
    "LSTM": {"hidden_dim": 64, "num_layers": 1, "dropout": 0.0, "bidirectional": False},
    "GRU": {"hidden_dim": 64, "num_layers": 1, "dropout": 0.0, "bidirectional": False},
    "Transformer": {"hidden_dim": 64, "num_layers": 2, "num_heads": 4, "dropout": 0.0},
    "ResNet": {"num_channels": (32, 64, 64), "kernel_size": 5, "dropout": 0.0, "activation": "relu"},
    "Autoencoder": {"hidden_dims": (), "latent_dim": 32, "dropout": 0.0, "activation": "relu"},
}
"""The settings that each built-in architecture reads, and their values when a spec leaves them out."""


@dataclass(frozen=True)
class Dense:
    """A fully connected stack: widths from input to output, an activation between layers."""

    widths: tuple[int, ...]


@dataclass(frozen=True)
class Recurrent:
    """An LSTM (4 gates) or GRU (3) over time and a linear layer on its mean output."""

    gates: int
    channels: int
    hidden: int
    layers: int
    bidirectional: bool
    outputs: int


@dataclass(frozen=True)
class Convolutional:
    """Convolutions over time, their mean over time, and a linear layer.

    Attributes:
        channels: From the input's to those of the last convolution.
        kernel: Samples that a convolution sees.
        residual: Blocks of two convolutions with a shortcut (He et al. 2016, "Deep residual learning for image
            recognition", for series as in Wang et al. 2017, "Time series classification from scratch"), with group
            instead of batch normalisation, which would mix samples and leak between clients.
    """

    channels: tuple[int, ...]
    kernel: int
    residual: bool
    outputs: int


@dataclass(frozen=True)
class Attention:
    """Transformer encoder over time with fixed sinusoidal positions (Vaswani et al. 2017, "Attention is all you need").

    Attributes:
        width: Numbers for each sample; the feed-forward layers have twice as many.
    """

    channels: int
    width: int
    layers: int
    heads: int
    outputs: int


Network = Dense | Recurrent | Convolutional | Attention


def network(model: ModelRecipe) -> Network:
    """The layers of a built-in architecture.

    Raises:
        KeyError: for an architecture that is not built in (Custom among them).
    """
    builders: dict[str, Callable[[ModelRecipe], Network]] = {
        "MLP": _mlp,
        "CNN": _convolutional,
        "LSTM": _recurrent,
        "GRU": _recurrent,
        "Transformer": _attention,
        "ResNet": _convolutional,
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
    if isinstance(layers, Convolutional):
        pairs = list(zip(layers.channels, layers.channels[1:], strict=False))
        body = sum((a * layers.kernel + 1) * b for a, b in pairs)
        if layers.residual:
            body += sum((b * layers.kernel + 1) * b + 4 * b + ((a + 1) * b if a != b else 0) for a, b in pairs)
        return body + (layers.channels[-1] + 1) * layers.outputs
    if isinstance(layers, Attention):
        wide = layers.width
        one = 4 * wide * (wide + 1) + (wide + 1) * 2 * wide + (2 * wide + 1) * wide + 4 * wide
        return (layers.channels + 1) * wide + layers.layers * one + (wide + 1) * layers.outputs
    directions = 2 if layers.bidirectional else 1
    count, width = 0, layers.channels
    for _ in range(layers.layers):
        count += directions * layers.gates * layers.hidden * (width + layers.hidden + 2)
        width = directions * layers.hidden
    return count + (width + 1) * layers.outputs


def _mlp(model: ModelRecipe) -> Network:
    hidden = integers(model.settings["hidden_dims"])
    return Dense((model.window_size * model.channels, *hidden, outputs(model)))


def _convolutional(model: ModelRecipe) -> Network:
    settings = model.settings
    return Convolutional(
        channels=(model.channels, *integers(settings["num_channels"])),
        kernel=integers(settings["kernel_size"])[0],
        residual=model.architecture == "ResNet",
        outputs=outputs(model),
    )


def _attention(model: ModelRecipe) -> Network:
    settings = model.settings
    return Attention(
        channels=model.channels,
        width=integers(settings["hidden_dim"])[0],
        layers=integers(settings["num_layers"])[0],
        heads=integers(settings["num_heads"])[0],
        outputs=outputs(model),
    )


def _recurrent(model: ModelRecipe) -> Network:
    settings = model.settings
    return Recurrent(
        gates=4 if model.architecture == "LSTM" else 3,
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
