from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedloom.flows.support import LOSSES
from fedloom.specs.checks_job import _LOSSES, _OPTIMIZER_KEYS
from fedloom.tasks.architectures import DEFAULTS, outputs, parameter_count
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.models import build_model, float_state, load_state, loss_function, optimizer, rehearse
from fedloom.tasks.privacy.dp_sgd import per_sample_clipped_sum, sample_losses
from fedloom.tasks.recipe import ModelRecipe, TrainingRecipe


def model(
    architecture: str, output: str = "binary_classification", custom: str | None = None, **given: Any
) -> ModelRecipe:
    settings = tuple(sorted({**DEFAULTS.get(architecture, {}), **given}.items()))
    return ModelRecipe(architecture, custom, settings, window_size=10, channels=3, output=output, classes=4)


CASES = [
    model("MLP"),
    model("MLP", hidden_dims=(7,), dropout=0.5, activation="tanh"),
    model("MLP", "multi_class"),
    model("LSTM", hidden_dim=5),
    model("LSTM", "multi_class", hidden_dim=5, num_layers=3, bidirectional=True, dropout=0.2),
    model("LSTM", num_layers=2),
    model("GRU", num_layers=2, hidden_dim=6, bidirectional=True),
    model("CNN"),
    model("CNN", "multi_class", num_channels=(5, 7, 6), kernel_size=4, dropout=0.1),
    model("CNN", "reconstruction_error", num_channels=(4,)),
    model("ResNet"),
    model("ResNet", "multi_class", num_channels=(6, 6, 9), kernel_size=2, dropout=0.3, activation="gelu"),
    model("Transformer"),
    model("Transformer", "multi_class", hidden_dim=9, num_heads=3, num_layers=1, dropout=0.1),
    model("Autoencoder", "reconstruction_error", latent_dim=4),
    model("Autoencoder", "reconstruction_error", hidden_dims=(20, 9), latent_dim=4, dropout=0.1),
]


@pytest.mark.parametrize("recipe", CASES, ids=lambda r: f"{r.architecture}-{r.output}")
def test_parameters_counted_without_torch_are_those_that_torch_builds(recipe: ModelRecipe) -> None:
    built = build_model(recipe)
    assert parameter_count(recipe) == sum(p.numel() for p in built.parameters())
    assert built(torch.zeros(2, 10, 3)).shape == (2, outputs(recipe))


@pytest.mark.parametrize("recipe", CASES, ids=lambda r: f"{r.architecture}-{r.output}")
def test_every_network_has_gradients_of_single_samples(recipe: ModelRecipe) -> None:
    """As privacy of records needs them: their sum is the gradient of the summed loss, where nothing is clipped."""
    torch.manual_seed(0)
    built = build_model(recipe).eval()
    loss = {"binary_classification": "BCEWithLogitsLoss", "multi_class": "CrossEntropyLoss"}
    measure = sample_losses(replace(training(loss=loss.get(recipe.output, "MSELoss")), class_weights=()))
    x = torch.randn(5, 10, 3)
    y = x.flatten(1) if recipe.output == "reconstruction_error" else torch.tensor([0, 1, 1, 0, 1])
    total, _ = per_sample_clipped_sum(built, measure, x, y, 1e9)
    measure(built(x), y).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(total[name], parameter.grad, atol=1e-5)


def test_order_in_time_matters_to_a_transformer() -> None:
    torch.manual_seed(0)
    built, x = build_model(model("Transformer")).eval(), torch.randn(2, 10, 3)
    assert not torch.allclose(built(x), built(x.flip(1)))


def test_reference_autoencoder_has_the_known_size() -> None:
    recipe = ModelRecipe(
        "Autoencoder",
        None,
        (("dropout", 0.0), ("hidden_dims", ()), ("latent_dim", 32)),
        100,
        6,
        "reconstruction_error",
        0,
    )
    assert parameter_count(recipe) == 39_032


def test_custom_class_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, width, bad=False):\n"
        "        super().__init__()\n"
        "        if bad: raise ValueError('no such width')\n"
        "        parts = nn.Linear(30, width), nn.BatchNorm1d(width), nn.Linear(width, 1)\n"
        "        self.body = nn.Sequential(nn.Flatten(), *parts)\n"
        "    def forward(self, x): return self.body(x)\n"
        "class Odd(Net):\n"
        "    def forward(self, x): return self.body(x).squeeze(1)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    built = build_model(model("Custom", custom="my_net:Net", width=5))
    assert all(tensor.is_floating_point() for tensor in float_state(built).values())
    for custom, settings, message in [
        ("my_net:Missing", {}, "does not import"),
        ("no_such_module:Net", {}, "does not import"),
        ("my_net:number", {}, "is no torch.nn.Module class"),
        ("my_net:Net", {}, "does not build"),
        ("my_net:Net", {"width": 4, "bad": True}, "no such width"),
        ("my_net:Odd", {"width": 4}, "gives shape"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            build_model(model("Custom", custom=custom, **settings))


def test_state_of_another_architecture_is_refused() -> None:
    state = float_state(build_model(model("MLP")))
    with pytest.raises(ConfigurationError, match="not of this architecture"):
        load_state(build_model(model("MLP", hidden_dims=(8,))), state)


def training(optimizer_name: str = "SGD", loss: str = "BCEWithLogitsLoss", **settings: float | bool) -> TrainingRecipe:
    return TrainingRecipe(
        "FedAvg", optimizer_name, tuple(settings.items()), 0.1, 0.0, loss, (1.0, 3.0), 1, 8, True, False, None, 60.0
    )


SETTINGS: dict[str, dict[str, float | bool]] = {
    "SGD": {"momentum": 0.9, "dampening": 0.0, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.01, "amsgrad": True},
    "AdaGrad": {"lr_decay": 0.1, "weight_decay": 0.01, "initial_accumulator_value": 0.2, "eps": 1e-6},
    "RMSprop": {"alpha": 0.9, "eps": 1e-6, "weight_decay": 0.01, "momentum": 0.5, "centered": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_optimizer_of_the_specs_takes_every_one_of_its_settings(name: str) -> None:
    assert SETTINGS[name].keys() == _OPTIMIZER_KEYS[name]
    recipe = training(name, **SETTINGS[name])
    rehearse(build_model(model("MLP")), model("MLP"), recipe)
    group = optimizer(recipe, build_model(model("MLP"))).param_groups[0]
    expected = {"lr": 0.1, **SETTINGS[name]}
    if name == "Adam":
        expected["betas"] = (expected.pop("beta1"), expected.pop("beta2"))  # type: ignore[assignment]
    assert {key: group[key] for key in expected} == expected


LABELS = torch.tensor([0, 1, 1, 0, 1])
LOSS_CASES: list[tuple[str, str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = [
    ("binary_classification", "BCEWithLogitsLoss", lambda o, y: nn.BCEWithLogitsLoss()(o[:, 0], y.float())),
    ("binary_classification", "BCELoss", lambda o, y: nn.BCELoss()(o[:, 0].sigmoid(), y.float())),
    ("multi_class", "CrossEntropyLoss", nn.CrossEntropyLoss()),
    ("multi_class", "NLLLoss", lambda o, y: nn.NLLLoss()(o.log_softmax(1), y)),
    *[
        (output, name, lambda o, y, made=made: made(o.reshape(y.shape), y))
        for output in ("regression", "reconstruction_error")
        for name, made in {
            "MSELoss": nn.MSELoss(),
            "L1Loss": nn.L1Loss(),
            "SmoothL1Loss": nn.SmoothL1Loss(),
            "HuberLoss": nn.HuberLoss(),
        }.items()
    ],
]


def test_every_loss_that_the_specs_accept_is_built_or_refused() -> None:
    built = {(output, name) for output, name, _ in LOSS_CASES}
    refused = {("binary_classification", "CrossEntropyLoss"), ("binary_classification", "NLLLoss")}
    assert built | refused == {(output, name) for output, names in _LOSSES.items() for name in names}
    assert built == {(output, name) for output, names in LOSSES.items() for name in names}


@pytest.mark.parametrize(("output", "name", "expected"), LOSS_CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_losses_are_torchs_and_those_of_samples_have_them_as_their_mean(output: str, name: str, expected: Any) -> None:
    torch.manual_seed(0)
    recipe = model("MLP", output)
    settings = replace(training(loss=name), class_weights=())
    out = build_model(recipe)(x := torch.randn(5, 10, 3))
    y = {"regression": torch.randn(5) * 3, "reconstruction_error": x.flatten(1)}.get(output, LABELS)
    mean = loss_function(settings)(out, y)
    torch.testing.assert_close(mean, expected(out, y))
    torch.testing.assert_close(sample_losses(settings)(out, y).mean(), mean)
    total, _ = per_sample_clipped_sum(built := build_model(recipe), sample_losses(settings), x, y, 1e9)
    sample_losses(settings)(built(x), y).sum().backward()  # type: ignore[no-untyped-call]
    for key, parameter in built.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(total[key], parameter.grad, atol=1e-5, rtol=1e-4)
    rehearse(built, recipe, settings)


def test_class_weights_of_many_classes_are_torchs() -> None:
    settings = replace(training(loss="NLLLoss"), class_weights=(1.0, 3.0, 0.5, 2.0))
    out = torch.randn(5, 4)
    expected = nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 0.5, 2.0]))(out, LABELS)
    torch.testing.assert_close(loss_function(settings)(out, LABELS), expected)


def test_class_weights_scale_the_loss_of_the_positive_class() -> None:
    loss = loss_function(training())
    zero = torch.zeros(1, 1)
    assert float(loss(zero, torch.tensor([1]))) == pytest.approx(3 * float(loss(zero, torch.tensor([0]))))


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (model("MLP"), training("SGD", nesterov=True)),
        (model("MLP"), training("Adam", alpha=0.9)),
        (model("MLP", "multi_class"), training()),
    ],
    ids=["nesterov without momentum", "setting of another optimizer", "loss of another output"],
)
def test_settings_that_do_not_go_together_are_found_in_a_rehearsal(
    recipe: ModelRecipe, settings: TrainingRecipe
) -> None:
    with pytest.raises(ConfigurationError, match="do not work together"):
        rehearse(build_model(recipe), recipe, settings)
