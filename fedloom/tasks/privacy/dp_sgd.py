"""Record-level differential privacy in a client's training: DP-SGD.

Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1: every sample's gradient is clipped to an L2
norm, Gaussian noise is added to their sum, and batches are drawn by Poisson sampling. What this file releases is the
gradient; a sum of losses is exact, and no part of the guarantee. Noise is drawn in float32 from the caller's
generator: the guarantee is that of the real Gaussian mechanism, and as secret as the generator's state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.models import DISTANCES, LossFunction, State, _Stack
from fedloom.tasks.recipe import TrainingRecipe

_NUMBERS_AT_ONCE = 2**24
"""Numbers in the gradients of single samples that are held at a time (64 MiB)."""


@dataclass(frozen=True)
class DpSgd:
    """The settings of DP-SGD.

    Attributes:
        noise_multiplier: Standard deviation of the noise on the sum of gradients over ``max_grad_norm``, at least 0.
        max_grad_norm: L2 norm to which a sample's gradient is clipped, positive.
        sampling_rate: Probability that a sample is in a batch, 0 to 1.
        steps: Batches in a round.
    """

    noise_multiplier: float
    max_grad_norm: float
    sampling_rate: float
    steps: int


def poisson_batches(n: int, sampling_rate: float, steps: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The batches of Poisson sampling: each sample is in each batch independently with the same probability.

    Args:
        n: Number of samples.
        sampling_rate: That probability, 0 to 1.
        steps: Number of batches.
        rng: Where to draw from; who knows its state knows the batches.

    Yields:
        The rows of a batch in ascending order, int64 [0 to n of them]; a batch may be empty.
    """
    for _ in range(steps):
        yield np.flatnonzero(rng.random(n) < sampling_rate).astype(np.int64, copy=False)


def sample_losses(training: TrainingRecipe) -> LossFunction:
    """The loss of every sample, float32 [N], where `fedloom.tasks.models.loss_function` gives their mean.

    A sample's loss is that of a batch of one, but for class weights in CrossEntropyLoss: torch divides a batch's
    weighted losses by the sum of its weights, which ties samples together and, in a batch of one, takes the weight out.
    Here a sample's loss is multiplied by the weight of its class and divided by nothing: for a step as long as without
    privacy, choose weights that are 1 on average over the samples.

    The target is the label or true value [N] or, for reconstruction_error, the flat window [N, outputs].
    """
    weights = torch.tensor(training.class_weights) if training.class_weights else None
    if training.loss in ("BCEWithLogitsLoss", "BCELoss"):
        bce = nn.BCEWithLogitsLoss(reduction="none", pos_weight=None if weights is None else weights[1] / weights[0])
        return lambda out, y: bce(out.squeeze(1), y.float())
    if training.loss in ("CrossEntropyLoss", "NLLLoss"):
        cross_entropy = nn.CrossEntropyLoss(weight=weights, reduction="none")
        return lambda out, y: cross_entropy(out, y)
    distance: nn.Module = DISTANCES[training.loss](reduction="none")
    return lambda out, y: distance(out.view_as(y), y).reshape(len(y), -1).mean(1)


def refuse_mixing(model: nn.Module) -> None:
    """Refuse layers through which a sample reaches other samples' gradients or a buffer without noise.

    Raises:
        ConfigurationError: for BatchNorm and SyncBatchNorm, and for InstanceNorm with running statistics.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) or getattr(part, "track_running_stats", False):
            raise ConfigurationError(
                f"the model's layer {name or 'itself'} ({type(part).__name__}) mixes the samples of a batch, "
                "so that no sample has a gradient of its own to clip; use GroupNorm or LayerNorm"
            )


def per_sample_clipped_sum(
    model: nn.Module, loss_fn: LossFunction, x: Tensor, y: Tensor, max_grad_norm: float
) -> tuple[State, float]:
    """The sum over a batch of the samples' gradients, each clipped on its own.

    The gradient g of a sample, over all trainable parameters together, counts as g·min(1, max_grad_norm/‖g‖). One that
    is not finite counts as zero, as no multiple of it has the norm that it may have.

    Samples never meet: dropout draws for each of them, and buffers stay as they are.

    Args:
        model: The network, in the mode (train or eval) that it shall run in; its ``.grad`` stay as they are.
        loss_fn: Losses [N] of outputs [N, …] and targets, from `sample_losses`.
        x: Inputs [N, …]; N may be 0.
        y: Targets [N, …].
        max_grad_norm: L2 norm to which a sample's gradient is clipped, positive.

    Returns:
        The sum for each trainable parameter, by name, shaped like it; and the sum of the samples' losses.

    Raises:
        ConfigurationError: when the network mixes samples (`refuse_mixing`).
        ValueError: when ``loss_fn`` does not give one loss a sample.
    """
    refuse_mixing(model)
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    if len(x) == 0:
        return total, 0.0
    if type(model) is _Stack and len(parameters) == len(list(model.parameters())):
        return _stack_sum(model, loss_fn, x, y, max_grad_norm)
    size = max(1, _NUMBERS_AT_ONCE // max(1, sum(p.numel() for p in parameters.values())))
    loss = 0.0
    for some_x, some_y in zip(torch.split(x, size), torch.split(y, size), strict=True):
        with sdpa_kernel(SDPBackend.MATH):  # attention's fused kernels do not take samples one by one
            gradients, losses = _single_gradients(model, loss_fn, some_x, some_y, parameters)
        flat = {name: gradients[name].flatten(1) for name in total}
        factors = _factors(torch.stack([g.square().sum(1) for g in flat.values()]).sum(0), max_grad_norm)
        for name, g in flat.items():
            total[name] += (factors @ torch.where(factors[:, None] > 0, g, 0.0)).view_as(total[name])
        loss += float(losses.sum())
    return total, loss


def private_gradient(
    model: nn.Module,
    loss_fn: LossFunction,
    x: Tensor,
    y: Tensor,
    settings: DpSgd,
    expected_batch: float,
    rng: np.random.Generator,
) -> float:
    """Put the noisy mean of a batch's clipped gradients into the parameters' ``.grad``.

    Args:
        model: The network.
        loss_fn: From `sample_losses`.
        x: Inputs [N, …]; N may be 0: a batch that nobody is in gets noise too.
        y: Targets [N, …].
        settings: Clipping norm and noise.
        expected_batch: What the sum is divided by: the size that batches have on average, not that of this one.
        rng: Draws the noise, of standard deviation ``noise_multiplier · max_grad_norm`` on each coordinate of the sum.

    Returns:
        The sum of the samples' losses; it has no noise, and is not to be released.

    Raises:
        ConfigurationError: when the network mixes samples.
    """
    total, loss = per_sample_clipped_sum(model, loss_fn, x, y, settings.max_grad_norm)
    scale = settings.noise_multiplier * settings.max_grad_norm
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.from_numpy(rng.standard_normal(tuple(parameter.shape), dtype=np.float32))
            parameter.grad = total[name].add_(noise, alpha=scale).div_(expected_batch)
    return loss


def _factors(squared_norms: Tensor, max_grad_norm: float) -> Tensor:
    """What each sample's gradient is multiplied by, float32 [N]; 0 where it is not finite."""
    factors = (max_grad_norm / squared_norms.sqrt().clamp_min(1e-12)).clamp_max(1.0)
    return torch.where(torch.isfinite(squared_norms), factors, 0.0)


def _stack_sum(model: _Stack, loss_fn: LossFunction, x: Tensor, y: Tensor, max_grad_norm: float) -> tuple[State, float]:
    """The clipped sum of a stack of linear layers, without any sample's gradient.

    A linear layer's gradient for a sample is the outer product of its input a and of the loss's derivative d at its
    output, whose squared norm is (‖a‖² + 1)·‖d‖² with the bias (Goodfellow 2015, "Efficient per-example gradient
    computations"); and a weighted sum of outer products is one matrix product.
    """
    inputs, outputs, value = [], [], x.flatten(1)
    for part in model.layers:
        if isinstance(part, nn.Linear):
            inputs.append(value.detach())
            value = part(value)
            outputs.append(value)
        else:
            value = part(value)
    losses = _one_loss_each(loss_fn(value, y), len(x))
    slopes = torch.autograd.grad(losses.sum(), outputs)
    squared = torch.stack(
        [(a.square().sum(1) + 1) * d.square().sum(1) for a, d in zip(inputs, slopes, strict=True)]
    ).sum(0)
    factors = _factors(squared, max_grad_norm)
    held = factors > 0
    total: State = {}
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    for (name, _), a, d in zip(linear, inputs, slopes, strict=True):
        scaled = torch.where(held[:, None], d * factors[:, None], 0.0)
        total[f"{name}.weight"] = scaled.T @ torch.where(held[:, None], a, 0.0)
        total[f"{name}.bias"] = scaled.sum(0)
    return total, float(losses.detach().sum())


def _single_gradients(
    model: nn.Module, loss_fn: LossFunction, x: Tensor, y: Tensor, parameters: State
) -> tuple[State, Tensor]:
    """The gradient of every sample, [N, …] by name, and the losses [N]."""
    buffers = {name: buffer.detach() for name, buffer in model.named_buffers()}

    def loss_of(weights: State, one_x: Tensor, one_y: Tensor) -> Tensor:
        out = torch.func.functional_call(model, (weights, buffers), (one_x[None],))
        return _one_loss_each(loss_fn(out, one_y[None]), 1)[0]

    each = torch.func.grad_and_value(loss_of)
    if any(isinstance(part, nn.RNNBase) for part in model.modules()):  # torch has no batching rule for these
        found = [each(parameters, one_x, one_y) for one_x, one_y in zip(x, y, strict=True)]
        gradients = {name: torch.stack([single[name] for single, _ in found]) for name in parameters}
        return gradients, torch.stack([loss for _, loss in found])
    mapped: tuple[State, Tensor] = torch.func.vmap(each, in_dims=(None, 0, 0), randomness="different")(parameters, x, y)
    return mapped


def _one_loss_each(losses: Tensor, samples: int) -> Tensor:
    if losses.shape != (samples,):
        raise ValueError(f"the loss function gives shape {list(losses.shape)} for {samples} samples")
    return losses
