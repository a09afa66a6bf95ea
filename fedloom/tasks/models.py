"""Networks, losses and optimisers, built from a recipe with torch."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedloom.specs.canonical import sha256
from fedloom.tasks.architectures import Attention, Convolutional, Dense, Recurrent, network, outputs
from fedloom.tasks.errors import ConfigurationError, one_line
from fedloom.tasks.recipe import ModelRecipe, TrainingRecipe

State = dict[str, Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
}


DISTANCES: Mapping[str, Callable[..., nn.Module]] = {
    "MSELoss": nn.MSELoss,
    "L1Loss": nn.L1Loss,
    "SmoothL1Loss": nn.SmoothL1Loss,
    "HuberLoss": nn.HuberLoss,
}
"""Losses between numbers, for regression and reconstruction_error; the bend of the last two is at 1."""


def build_model(recipe: ModelRecipe) -> nn.Module:
    """The network with freshly drawn parameters (from torch's global generator).

    It maps windows, float32 [N, window_size, channels], to float32 [N, outputs]: one logit for
    binary_classification, one logit a class for multi_class, one number for regression, the window itself, flat, for
    reconstruction_error.

    Raises:
        ConfigurationError: when a Custom class does not import or does not build.
    """
    if recipe.architecture == "Custom":
        return _custom(recipe)
    layers = network(recipe)
    dropout = float(str(recipe.settings["dropout"]))
    if isinstance(layers, Dense):
        return _Stack(layers, dropout, ACTIVATIONS[str(recipe.settings["activation"])])
    if isinstance(layers, Convolutional):
        return _Convolutions(layers, dropout, ACTIVATIONS[str(recipe.settings["activation"])])
    if isinstance(layers, Attention):
        return _Encoder(layers, dropout, recipe.window_size)
    return _MeanOverTime(layers, dropout)


class _Stack(nn.Module):
    def __init__(self, layers: Dense, dropout: float, activation: type[nn.Module]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for a, b in zip(layers.widths, layers.widths[1:], strict=False):
            parts += [nn.Linear(a, b), activation(), *([nn.Dropout(dropout)] if dropout else [])]
        last = max(i for i, part in enumerate(parts) if isinstance(part, nn.Linear))
        self.layers = nn.Sequential(*parts[: last + 1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x.flatten(1))
        return out


class _MeanOverTime(nn.Module):
    def __init__(self, layers: Recurrent, dropout: float) -> None:
        super().__init__()
        recurrent: type[nn.LSTM] | type[nn.GRU] = nn.LSTM if layers.gates == 4 else nn.GRU
        self.recurrent = recurrent(
            layers.channels,
            layers.hidden,
            layers.layers,
            batch_first=True,
            dropout=dropout if layers.layers > 1 else 0.0,
            bidirectional=layers.bidirectional,
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(layers.hidden * (2 if layers.bidirectional else 1), layers.outputs)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(x)
        logits: Tensor = self.head(self.dropout(out.mean(dim=1)))
        return logits


class _Convolutions(nn.Module):
    def __init__(self, layers: Convolutional, dropout: float, activation: type[nn.Module]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for a, b in zip(layers.channels, layers.channels[1:], strict=False):
            if layers.residual:
                parts.append(_Block(a, b, layers.kernel, activation))
            else:
                parts += [_convolution(a, b, layers.kernel), activation()]
            parts += [nn.Dropout(dropout)] if dropout else []
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(layers.channels[-1], layers.outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x.transpose(1, 2)).mean(dim=2))
        return out


class _Block(nn.Module):
    def __init__(self, a: int, b: int, kernel: int, activation: type[nn.Module]) -> None:
        super().__init__()
        groups = math.gcd(b, 8)
        first = [_convolution(a, b, kernel), nn.GroupNorm(groups, b), activation()]
        self.body = nn.Sequential(*first, _convolution(b, b, kernel), nn.GroupNorm(groups, b))
        self.shortcut = nn.Identity() if a == b else nn.Conv1d(a, b, 1)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


def _convolution(a: int, b: int, kernel: int) -> nn.Module:
    """As long as its input: an even kernel sees one sample less of the past than of the future."""
    pad = nn.ConstantPad1d(((kernel - 1) // 2, kernel // 2), 0.0)
    return nn.Sequential(pad, nn.Conv1d(a, b, kernel))


class _Encoder(nn.Module):
    def __init__(self, layers: Attention, dropout: float, window: int) -> None:
        super().__init__()
        self.project = nn.Linear(layers.channels, layers.width)
        one = nn.TransformerEncoderLayer(layers.width, layers.heads, 2 * layers.width, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(one, layers.layers, enable_nested_tensor=False)
        self.head = nn.Linear(layers.width, layers.outputs)
        at = torch.arange(window).unsqueeze(1)
        rates = torch.exp(torch.arange(0, layers.width, 2) * (-math.log(10_000.0) / layers.width))
        waves = torch.stack([torch.sin(at * rates), torch.cos(at * rates)], dim=2).flatten(1)[:, : layers.width]
        self.register_buffer("positions", waves, persistent=False)  # fixed, so no part of the model that travels
        self.positions: Tensor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(self.project(x) + self.positions).mean(dim=1))
        return out


def _custom(recipe: ModelRecipe) -> nn.Module:
    where = recipe.custom_class or ""
    module_name, _, class_name = where.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ConfigurationError(f"model_config.custom_class {where!r} does not import: {one_line(error)}") from error
    if not (inspect.isclass(made) and issubclass(made, nn.Module)):
        raise ConfigurationError(f"model_config.custom_class {where!r} is no torch.nn.Module class")
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in recipe.hyperparameters}
    try:
        model: nn.Module = made(**settings)
        shape = tuple(model.eval()(torch.zeros(2, recipe.window_size, recipe.channels)).shape)
    except (Exception, SystemExit) as error:  # whatever a user's class raises is a wrong specification
        raise ConfigurationError(
            f"model_config.custom_class {where!r} does not build with {settings} and take windows of shape "
            f"[N, {recipe.window_size}, {recipe.channels}]: {one_line(error)}"
        ) from error
    if shape != (2, outputs(recipe)):
        raise ConfigurationError(
            f"model_config.custom_class {where!r} gives shape {list(shape)} for 2 windows; "
            f"{recipe.output} needs [2, {outputs(recipe)}]"
        )
    return model.train()


def custom_source(recipe: ModelRecipe) -> str | None:
    """SHA-256 of the file that defines a Custom class; None for the built-in architectures."""
    if recipe.custom_class is None or recipe.architecture != "Custom":
        return None
    module = importlib.import_module(recipe.custom_class.partition(":")[0])
    return sha256(Path(inspect.getfile(module)).read_bytes())


def rehearse(model: nn.Module, recipe: ModelRecipe, training: TrainingRecipe) -> None:
    """Take one step on zeros, so that settings that do not go together are found before any client trains.

    Raises:
        ConfigurationError: when network, loss and optimiser do not work together.
    """
    x = torch.zeros(2, recipe.window_size, recipe.channels)
    labels = torch.tensor([0.0, 1.0] if recipe.output == "regression" else [0, 1])
    target = x.flatten(1) if recipe.output == "reconstruction_error" else labels
    try:
        step = optimizer(training, model)
        loss_function(training)(model(x), target).backward()  # type: ignore[no-untyped-call]
        step.step()
    except (Exception, SystemExit) as error:  # torch and custom classes raise what they like
        what = recipe.custom_class or recipe.architecture
        message = f"{what}, {training.loss} and {training.optimizer} do not work together: {one_line(error)}"
        raise ConfigurationError(message) from error


def float_state(model: nn.Module) -> State:
    """A copy of the parameters and floating-point buffers, in the order of their names."""
    state = model.state_dict()
    return {name: state[name].detach().clone() for name in sorted(state) if state[name].is_floating_point()}


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a state from `float_state` into a model.

    Raises:
        ConfigurationError: when names or shapes differ.
    """
    own = float_state(model)
    wrong = sorted(own.keys() ^ state.keys()) or [n for n in own if own[n].shape != state[n].shape]
    if wrong:
        raise ConfigurationError(f"the stored model is not of this architecture: {', '.join(wrong[:3])} differ")
    model.load_state_dict(dict(state), strict=False)


def loss_function(training: TrainingRecipe) -> LossFunction:
    """The mean loss of a batch, from the network's output [N, outputs] and the target.

    All take the network's output as it is: BCELoss applies the sigmoid and NLLLoss the logarithm of the softmax first,
    in one stable function with it.

    The target is the label or true value [N] or, for reconstruction_error, the flat window [N, outputs].
    """
    weights = torch.tensor(training.class_weights) if training.class_weights else None
    if training.loss in ("BCEWithLogitsLoss", "BCELoss"):
        bce = nn.BCEWithLogitsLoss(pos_weight=None if weights is None else weights[1] / weights[0])
        return lambda out, y: bce(out.squeeze(1), y.float())
    if training.loss in ("CrossEntropyLoss", "NLLLoss"):
        cross_entropy = nn.CrossEntropyLoss(weight=weights)
        return lambda out, y: cross_entropy(out, y)
    distance: nn.Module = DISTANCES[training.loss]()
    return lambda out, y: distance(out.view_as(y), y)


def optimizer(training: TrainingRecipe, model: nn.Module) -> torch.optim.Optimizer:
    """The client's optimiser over all parameters of the model."""
    made: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "SGD": torch.optim.SGD,
        "Adam": torch.optim.Adam,
        "AdaGrad": torch.optim.Adagrad,
        "RMSprop": torch.optim.RMSprop,
    }
    settings: dict[str, Any] = {"lr": training.learning_rate, **dict(training.optimizer_settings)}
    if training.optimizer == "Adam":
        settings["betas"] = (settings.pop("beta1", 0.9), settings.pop("beta2", 0.999))
    return made[training.optimizer](model.parameters(), **settings)
