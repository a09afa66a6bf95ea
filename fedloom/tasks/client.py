"""What a client does in a round: receive the model, fit it to its own data.

These functions need the order, the client's own data and nothing else, so that a client far away can call them as
well as a step that simulates a whole shard.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fedloom.specs.canonical import sha256
from fedloom.tasks.client_data import Windows
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.learning_rate import training_of
from fedloom.tasks.memory import shortage, training_bytes
from fedloom.tasks.model_store import bytes_to_tensors
from fedloom.tasks.models import State, float_state, load_state, loss_function, optimizer
from fedloom.tasks.privacy.dp_sgd import DpSgd, poisson_batches, private_gradient, sample_losses
from fedloom.tasks.recipe import ModelRecipe, PrivacyRecipe, Recipe, TrainingRecipe
from fedloom.tasks.scaffold.client import Controls
from fedloom.tasks.seeds import torch_seed
from fedloom.tasks.window_spec import WindowSpec


class DropoutError(Exception):
    """This client gives no update in this round; the message is the reason."""


@dataclass(frozen=True)
class Order:
    """What the server asks of the clients of a round.

    Attributes:
        plan_digest: The plan that the order belongs to.
        round: From 1.
        seed: The job's seed.
        threads: Threads that training may use.
        model_digest: SHA-256 of the model's bytes.
        model_bytes: Size of the model.
        control_digest: SHA-256 of SCAFFOLD's server control variate; None while all are zero.
    """

    plan_digest: str
    round: int
    seed: int
    threads: int
    model_digest: str
    model_bytes: int
    model: ModelRecipe
    inputs: WindowSpec
    training: TrainingRecipe
    privacy: PrivacyRecipe | None
    control_digest: str | None = None


@dataclass(frozen=True)
class ClientUpdate:
    """What a client gives back.

    Attributes:
        delta: New minus received parameters, float32.
        samples: Windows that it trained on.
        loss: Mean loss per window over the last local epoch.
        within: Whether the update kept its length, as it was within the clipping norm or there is none.
        control: The client's next control variate, where it trained with one.
        loss_before: Mean loss per window of the received model, where the order asks for it.
    """

    delta: State
    samples: int
    loss: float
    within: bool = True
    control: State | None = None
    loss_before: float | None = None


def make_order(
    recipe: Recipe,
    plan_digest: str,
    round: int,
    model_digest: str,
    model_bytes: int,
    control_digest: str | None = None,
) -> Order:
    """The order of one round."""
    return Order(
        plan_digest=plan_digest,
        round=round,
        seed=recipe.seed,
        threads=recipe.threads,
        model_digest=model_digest,
        model_bytes=model_bytes,
        model=recipe.model,
        inputs=recipe.inputs,
        training=training_of(recipe, round),
        privacy=recipe.privacy,
        control_digest=control_digest,
    )


def receive(order: Order, data: bytes) -> State:
    """Check that the received bytes are the model of the order, and read it.

    Raises:
        DropoutError: when they are not.
    """
    if sha256(data) != order.model_digest:
        raise DropoutError(f"received a model with SHA-256 {sha256(data)[:12]}…, expected {order.model_digest[:12]}…")
    return bytes_to_tensors(data, "the received model")


def fit(
    order: Order,
    client: str,
    start: State,
    windows: Windows,
    model: nn.Module,
    noise: np.random.Generator | None = None,
    controls: Controls | None = None,
) -> ClientUpdate:
    """Train on the client's windows, from the received parameters.

    FedAvg runs plain local epochs (McMahan et al. 2017, "Communication-efficient learning of deep networks from
    decentralized data"); FedProx adds the gradient of mu/2 · ‖w − w_received‖² (Li et al. 2020, "Federated
    optimization in heterogeneous networks"); SCAFFOLD shifts it by the control variates (`fedloom.tasks.scaffold`).

    Args:
        order: What to do.
        client: The client's id; its randomness follows from it.
        start: The received parameters.
        windows: The client's data.
        model: A network of the order's architecture; its parameters are overwritten.
        noise: Draws batches and noise where the order asks for privacy of records; nobody else may know its state.
        controls: SCAFFOLD's control variates; None for other algorithms.

    Raises:
        DropoutError: when there is too little memory, it takes too long, or its update is not finite.
    """
    known = None if order.model.architecture != "Custom" else sum(p.numel() for p in model.parameters())
    need = training_bytes(order.model, order.training, known, len(windows.x))
    if need is not None and (reason := shortage(need)) is not None:
        raise DropoutError(f"training {reason}")
    with repeatable(order.threads, torch_seed(order.seed, "train", order.round, client)):
        # From here on: waiting for another client of this process is no fault of this one.
        deadline = time.monotonic() + order.training.client_timeout_s
        load_state(model, start)
        before = _loss_as_received(order, windows, model) if order.training.loss_before else None
        model.train()
        if order.privacy is not None and order.privacy.unit == "record":
            assert noise is not None, "privacy of records needs noise"
            loss = _private_steps(order, order.privacy, windows, model, start, deadline, noise)
        else:
            loss = _epochs(order, windows, model, start, deadline, controls)
        after = float_state(model)
    delta = {name: after[name] - start[name] for name in start}
    within = True
    if order.privacy is not None and order.privacy.unit == "client":
        short = clipped(delta, order.privacy.clip)
        delta, within = short, short is delta
    control = None if controls is None else controls.renewed(delta, order.training, len(windows.x))
    tensors = (*delta.values(), *(control or {}).values())
    if not math.isfinite(loss) or not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise DropoutError("training diverged: the update is not finite")
    return ClientUpdate(delta, len(windows.x), loss, within, control, before)


def clipped(delta: State, norm: float) -> State:
    """An update, scaled down to an L2 norm over all its tensors where it is longer."""
    long = length(delta)
    if not long > norm:
        return delta
    return {name: tensor * (norm / long) for name, tensor in delta.items()}


def length(delta: State) -> float:
    """L2 norm of an update over all its tensors."""
    return float(torch.stack([tensor.double().square().sum() for tensor in delta.values()]).sum().sqrt())


def _private_steps(
    order: Order,
    privacy: PrivacyRecipe,
    windows: Windows,
    model: nn.Module,
    start: State,
    deadline: float,
    noise: np.random.Generator,
) -> float:
    """DP-SGD's steps; the gradient's noise covers whatever the optimiser makes of it."""
    training = order.training
    x = torch.from_numpy(windows.x)
    y = _targets(order, windows, x)
    optimise = optimizer(training, model)
    measure = sample_losses(training)
    settings = DpSgd(privacy.noise_multiplier, privacy.clip, privacy.rate, privacy.steps_per_round)
    total, seen = 0.0, 0
    for rows in poisson_batches(len(x), privacy.rate, privacy.steps_per_round, noise):
        if time.monotonic() > deadline:
            raise DropoutError(f"late: training took more than {training.client_timeout_s:g} s")
        batch = torch.from_numpy(rows)
        total += private_gradient(model, measure, x[batch], y[batch], settings, privacy.rate * len(x), noise)
        seen += len(rows)
        for name, parameter in model.named_parameters():
            if training.proximal and parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start[name], alpha=training.proximal)
        optimise.step()
    return total / max(seen, 1)


def _epochs(
    order: Order, windows: Windows, model: nn.Module, start: State, deadline: float, controls: Controls | None
) -> float:
    training = order.training
    x = torch.from_numpy(windows.x)
    y = _targets(order, windows, x)
    optimise = optimizer(training, model)
    measure = loss_function(training)
    anchors = [(p, start[name]) for name, p in model.named_parameters()] if training.proximal else []
    shift = {} if controls is None else controls.correction()
    shifts = [(p, shift[name]) for name, p in model.named_parameters() if name in shift]
    total = 0.0
    for _ in range(training.local_epochs):
        total = 0.0
        rows = torch.randperm(len(x)) if training.shuffle else torch.arange(len(x))
        for batch in torch.split(rows, training.batch_size):
            if time.monotonic() > deadline:
                raise DropoutError(f"late: training took more than {training.client_timeout_s:g} s")
            optimise.zero_grad(set_to_none=True)
            loss = measure(model(x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter, anchor in anchors:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - anchor, alpha=training.proximal)
            for parameter, step in shifts:
                if parameter.grad is not None:
                    parameter.grad.add_(step)
            optimise.step()
            total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def _loss_as_received(order: Order, windows: Windows, model: nn.Module) -> float:
    x = torch.from_numpy(windows.x)
    y = _targets(order, windows, x)
    measure, total = loss_function(order.training), 0.0
    model.eval()
    for batch in torch.split(torch.arange(len(x)), order.training.batch_size):
        total += float(measure(model(x[batch]), y[batch])) * len(batch)
    return total / len(x)


def _targets(order: Order, windows: Windows, x: torch.Tensor) -> torch.Tensor:
    if order.model.output == "reconstruction_error":
        return x.flatten(1)
    if windows.y is None:
        raise DropoutError("the client's data has no labels")
    classes = order.model.classes
    if classes and (windows.y.min() < 0 or windows.y.max() >= classes):
        raise DropoutError(f"labels range from {windows.y.min()} to {windows.y.max()}, expected 0 to {classes - 1}")
    return torch.from_numpy(windows.y)
