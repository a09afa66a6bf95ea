"""Clipped sums against one backward pass a sample, and the noise and the batches against what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.models import build_model
from fedloom.tasks.privacy.dp_sgd import DpSgd, per_sample_clipped_sum, poisson_batches, private_gradient
from fedloom.tasks.recipe import ModelRecipe

WINDOW, CHANNELS = 6, 3


def losses(out: Tensor, y: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(out.squeeze(1), y.float(), reduction="none")


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, 4, 3)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.conv(x.transpose(1, 2))).relu().mean(2))
        return out


def network(architecture: str, **settings_: Any) -> nn.Module:
    torch.manual_seed(3)
    if architecture == "Convolution":
        return Convolution()
    recipe = ModelRecipe(
        architecture, None, tuple(sorted(settings_.items())), WINDOW, CHANNELS, "binary_classification", 2
    )
    return build_model(recipe)


MODELS = [
    *[("MLP", {"hidden_dims": (5, 4), "dropout": 0.0, "activation": a}) for a in ("relu", "tanh", "gelu", "sigmoid")],
    ("LSTM", {"hidden_dim": 4, "num_layers": 2, "dropout": 0.0, "bidirectional": True}),
    ("Convolution", {}),
]


def batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, WINDOW, CHANNELS)) * rng.uniform(0.1, 20, (size, 1, 1))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(rng.integers(0, 2, size))


def one_by_one(model: nn.Module, x: Tensor, y: Tensor, norm: float) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(x)):
        model.zero_grad()
        losses(model(x[i : i + 1]), y[i : i + 1]).sum().backward()
        size = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
        for name, p in model.named_parameters():
            total[name] += p.grad * min(1.0, norm / float(size))
    model.zero_grad()
    return total


@pytest.mark.parametrize(("architecture", "given_"), MODELS)
@pytest.mark.parametrize("norm", [0.1, 1.0, 100.0])
def test_the_sum_is_that_of_single_samples(architecture: str, given_: dict[str, Any], norm: float) -> None:
    model, (x, y) = network(architecture, **given_), batch(9)
    total, loss = per_sample_clipped_sum(model, losses, x, y, norm)
    expected = one_by_one(model, x, y, norm)
    assert total.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(total[name], expected[name], rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(float(losses(model(x), y).sum()), rel=1e-5)


@pytest.mark.parametrize(("architecture", "given_"), MODELS)
def test_one_sample_moves_the_sum_by_no_more_than_the_norm(architecture: str, given_: dict[str, Any]) -> None:
    model, (x, y) = network(architecture, **given_), batch(6, seed=1)
    whole, _ = per_sample_clipped_sum(model, losses, x, y, 0.5)
    for i in range(len(x)):
        rest = [j for j in range(len(x)) if j != i]
        without, _ = per_sample_clipped_sum(model, losses, x[rest], y[rest], 0.5)
        moved = torch.sqrt(sum((whole[name] - without[name]).square().sum() for name in whole))
        assert float(moved) <= 0.5 * (1 + 1e-4)


@pytest.mark.parametrize(("architecture", "given_"), MODELS)
def test_an_empty_batch_and_one_that_is_not_finite_add_nothing(architecture: str, given_: dict[str, Any]) -> None:
    model, (x, y) = network(architecture, **given_), batch(3)
    total, loss = per_sample_clipped_sum(model, losses, x[:0], y[:0], 1.0)
    assert all(not bool(t.any()) for t in total.values())
    assert loss == 0.0
    expected, _ = per_sample_clipped_sum(model, losses, x[1:], y[1:], 1.0)
    x[0] = float("nan")
    total, _ = per_sample_clipped_sum(model, losses, x, y, 1.0)
    for name in expected:
        torch.testing.assert_close(total[name], expected[name])


def test_dropout_is_drawn_for_each_sample() -> None:
    model = network("MLP", hidden_dims=(200,), dropout=0.5, activation="relu").train()
    x, y = torch.ones(2, WINDOW, CHANNELS), torch.zeros(2, dtype=torch.int64)
    single, _ = per_sample_clipped_sum(model, losses, x[:1], y[:1], 1e9)
    both, _ = per_sample_clipped_sum(model, losses, x, y, 1e9)
    assert not torch.allclose(both["layers.0.weight"], 2 * single["layers.0.weight"])


def test_layers_that_mix_samples_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(WINDOW * CHANNELS, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ConfigurationError, match=r"layer 2 \(BatchNorm1d\) mixes the samples"):
        per_sample_clipped_sum(model, losses, *batch(3), 1.0)


def test_the_noise_has_the_size_that_was_asked_for() -> None:
    model = network("MLP", hidden_dims=(300, 200), dropout=0.0, activation="relu")
    x, y = batch(0)
    wanted = DpSgd(noise_multiplier=2.0, max_grad_norm=0.5, sampling_rate=0.1, steps=1)
    private_gradient(model, losses, x, y, wanted, 4.0, np.random.default_rng(1))
    drawn = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).numpy()
    assert len(drawn) > 60_000
    assert abs(drawn.mean()) < 0.005
    assert abs(drawn.std() / (2.0 * 0.5 / 4.0) - 1) < 0.02
    assert abs((drawn**4).mean() / drawn.var() ** 2 - 3) < 0.15  # as a Gaussian's


@settings(max_examples=20)
@given(st.integers(0, 50), st.floats(0.0, 1.0), st.integers(0, 20), st.integers(0, 2**32))
def test_batches_have_rows_of_the_data(n: int, rate: float, steps: int, seed: int) -> None:
    batches = list(poisson_batches(n, rate, steps, np.random.default_rng(seed)))
    assert len(batches) == steps
    assert all(len(set(rows)) == len(rows) and all(0 <= row < n for row in rows) for rows in batches)


def test_every_row_is_drawn_independently_at_the_rate() -> None:
    drawn = np.zeros((4000, 30))
    for i, rows in enumerate(poisson_batches(30, 0.2, 4000, np.random.default_rng(2))):
        drawn[i, rows] = 1
    assert np.abs(drawn.mean(0) - 0.2).max() < 0.03
    assert abs(drawn.sum(1).var() / (30 * 0.2 * 0.8) - 1) < 0.1  # a binomial's: sizes are not fixed
    correlation = np.corrcoef(drawn.T) - np.eye(30)
    assert np.abs(correlation).max() < 0.08
