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

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.models import LossFunction, State, _Stack
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

    The target is the label [N] or, for reconstruction_error, the flat window [N, outputs].
    """
    weights = torch.tensor(training.class_weights) if training.class_weights else None
    if training.loss == "BCEWithLogitsLoss":
        bce = nn.BCEWithLogitsLoss(reduction="none", pos_weight=None if weights is None else weights[1] / weights[0])
        return lambda out, y: bce(out.squeeze(1), y.float())
    if training.loss == "CrossEntropyLoss":
        cross_entropy = nn.CrossEntropyLoss(weight=weights, reduction="none")
        return lambda out, y: cross_entropy(out, y)
    distances = {"MSELoss": nn.MSELoss, "L1Loss": nn.L1Loss, "HuberLoss": nn.HuberLoss}
    distance: nn.Module = distances[training.loss](reduction="none")
    return lambda out, y: distance(out, y).mean(1)


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
    built_in = len(parameters) == sum(1 for _ in model.parameters())  # with frozen parameters, take the general way
    if built_in and type(model) is _Stack and len(x):
        return _stack_sum(model, loss_fn, x, y, max_grad_norm)
    gradients = _recurrent_gradients if built_in and type(model) is _MeanOverTime else _any_gradients
    size = max(1, _NUMBERS_AT_ONCE // max(1, sum(p.numel() for p in parameters.values())))
    loss = 0.0
    for rows in torch.arange(len(x)).split(size) if len(x) else ():
        single, losses = gradients(model, loss_fn, x[rows], y[rows])
        flat = [single[name].flatten(1) for name in total]
        squares = torch.stack([g.square().sum(1) for g in flat]).sum(0)
        finite = torch.isfinite(squares)
        if not finite.all():
            squares, flat = squares[finite], [g[finite] for g in flat]
        factors = _factors(squares, max_grad_norm)
        for part, g in zip(total.values(), flat, strict=True):
            part += (factors @ g).view_as(part)
        loss += losses.sum().item()
    return total, loss


def private_gradient(
    model: nn.Module,
    loss_fn: LossFunction,
    x: Tensor,
    y: Tensor,
    settings: DpSgd,
    expected_batch_size: float,
    rng: np.random.Generator,
) -> float:
    """Put the noisy gradient of a batch into the trainable parameters' ``.grad``, for any optimiser to step with.

    It is (Σ clipped gradients + N(0, (noise_multiplier·max_grad_norm)²)) / expected_batch_size in each coordinate.
    What is added to ``.grad`` afterwards without looking at data, such as FedProx's term, costs no privacy.

    Args:
        model: The network, in train mode.
        loss_fn: Losses [N] of outputs and targets, from `sample_losses`.
        x: Inputs [N, …] of a batch of `poisson_batches`.
        y: Targets [N, …].
        settings: How much noise and clipping.
        expected_batch_size: sampling_rate times the number of samples, positive. The size of the batch at hand would
            tell who is in it.
        rng: Where the noise comes from, one number a coordinate in the order of the model's parameters.

    Returns:
        The sum of the samples' losses, without noise: for the client's eyes only.

    Raises:
        ConfigurationError: when the network mixes samples (`refuse_mixing`).
        ValueError: when ``loss_fn`` does not give one loss a sample.
    """
    total, loss = per_sample_clipped_sum(model, loss_fn, x, y, settings.max_grad_norm)
    scale = settings.noise_multiplier * settings.max_grad_norm
    count = sum(part.numel() for part in total.values())
    noise = torch.from_numpy(rng.standard_normal(count, dtype=np.float32)).split([p.numel() for p in total.values()])
    parameters = dict(model.named_parameters())
    for (name, part), drawn in zip(total.items(), noise, strict=True):
        parameters[name].grad = part.add_(drawn.view_as(part), alpha=scale).div_(expected_batch_size)
    return loss


def _factors(squares: Tensor, max_grad_norm: float) -> Tensor:
    return (max_grad_norm / squares.sqrt()).clamp(max=1.0)


def _checked(losses: Tensor, n: int) -> Tensor:
    if losses.shape != (n,):
        raise ValueError(f"the loss function gives shape {list(losses.shape)} for {n} samples, expected [{n}]")
    return losses


def _stack_sum(model: _Stack, loss_fn: LossFunction, x: Tensor, y: Tensor, max_grad_norm: float) -> tuple[State, float]:
    """The clipped sum of a fully connected stack, without any sample's own gradient.

    A layer's gradient for a sample is the outer product of δ, the loss's gradient with respect to the layer's output,
    and its input a; for the bias it is δ. So its squared norm is ‖δ‖²·(‖a‖² + 1), and the sum of such gradients times
    factors is one matrix product (Goodfellow 2015, "Efficient per-example gradient computations").
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    names: list[str] = []
    out = x.flatten(1)
    for name, part in model.layers.named_children():
        if isinstance(part, nn.Linear):
            names.append(f"layers.{name}")
            inputs.append(out.detach())
            out = part(out)
            outputs.append(out)
        else:
            out = part(out)
    losses = _checked(loss_fn(out, y), len(x))
    deltas = list(torch.autograd.grad(losses.sum(), outputs))
    norms = [d.square().sum(1) * (a.square().sum(1) + 1) for d, a in zip(deltas, inputs, strict=True)]
    squares = torch.stack(norms).sum(0)
    finite = torch.isfinite(squares)
    if not finite.all():
        squares, deltas, inputs = squares[finite], [d[finite] for d in deltas], [a[finite] for a in inputs]
    factors = _factors(squares, max_grad_norm).unsqueeze(1)
    total: State = {}
    for name, delta, a in zip(names, deltas, inputs, strict=True):
        clipped = delta * factors
        total[f"{name}.weight"] = clipped.T @ a
        total[f"{name}.bias"] = clipped.sum(0)
    return total, losses.sum().item()


def _recurrent_gradients(model: _MeanOverTime, loss_fn: LossFunction, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
    """Every sample's gradients [N, …] and losses [N] for an LSTM with a linear head.

    torch's own LSTM runs under vmap with some kernels only, one sample after the other. Here the batch runs step by
    step, and one backward pass gives δ, the loss's gradients with respect to the gates before their activation
    [N, T, 4·hidden]; a sample's gradients are Σ_t δ_t xᵗ, Σ_t δ_t hᵗ⁻¹ and, for both biases, Σ_t δ_t.
    """
    lstm = model.lstm
    gates: dict[str, Tensor] = {}
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    out = x
    for layer in range(lstm.num_layers):
        before = out if layer == 0 else nn.functional.dropout(out, lstm.dropout, model.training)
        ways = []
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: 2 if lstm.bidirectional else 1]:
            read = before.flip(1) if suffix.endswith("reverse") else before
            bias = getattr(lstm, f"bias_ih{suffix}") + getattr(lstm, f"bias_hh{suffix}")
            gates[suffix] = nn.functional.linear(read, getattr(lstm, f"weight_ih{suffix}"), bias)
            hidden = _run(gates[suffix], getattr(lstm, f"weight_hh{suffix}"))
            seen[suffix] = read.detach(), nn.functional.pad(hidden.detach()[:, :-1], (0, 0, 1, 0))
            ways.append(hidden.flip(1) if suffix.endswith("reverse") else hidden)
        out = torch.cat(ways, dim=2)
    pooled = model.dropout(out.mean(dim=1))
    logits = model.head(pooled)
    losses = _checked(loss_fn(logits, y), len(x))
    *deltas, last = torch.autograd.grad(losses.sum(), [*gates.values(), logits])
    single = {"head.weight": last.unsqueeze(2) * pooled.detach().unsqueeze(1), "head.bias": last}
    for (suffix, (read, previous)), delta in zip(seen.items(), deltas, strict=True):
        single[f"lstm.weight_ih{suffix}"] = delta.mT @ read
        single[f"lstm.weight_hh{suffix}"] = delta.mT @ previous
        single[f"lstm.bias_ih{suffix}"] = single[f"lstm.bias_hh{suffix}"] = delta.sum(1)
    return single, losses.detach()


def _run(gates: Tensor, weight: Tensor) -> Tensor:
    """The outputs [N, T, hidden] of an LSTM cell whose gates have had their input [N, T, 4·hidden]."""
    hidden = cell = gates.new_zeros(len(gates), weight.shape[1])
    outputs = []
    for given in gates.unbind(1):
        i, f, g, o = torch.addmm(given, hidden, weight.T).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs, dim=1)


def _any_gradients(model: nn.Module, loss_fn: LossFunction, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
    """Every sample's gradients [N, …] and losses [N] for any network, each sample as a batch of one."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: buffer.detach() for name, buffer in model.named_buffers()}

    def loss_of(trained: State, buffers: State, sample: Tensor, target: Tensor) -> Tensor:
        out = functional_call(model, {**trained, **buffers}, (sample.unsqueeze(0),))
        return _checked(loss_fn(out, target.unsqueeze(0)), 1).squeeze(0)

    one = grad_and_value(loss_of)
    if not any(isinstance(part, nn.RNNBase) for part in model.modules()):
        try:
            many = vmap(one, in_dims=(None, None, 0, 0), randomness="different")
            gradients, losses = many(trained, buffers, x, y)
            return gradients, losses
        except RuntimeError:  # what vmap cannot do: branches on values, buffers that change, layers without a rule
            pass
    each = [one(trained, {n: b.clone() for n, b in buffers.items()}, *pair) for pair in zip(x, y, strict=True)]
    single = {name: torch.stack([gradients[name] for gradients, _ in each]) for name in trained}
    return single, torch.stack([loss for _, loss in each])
