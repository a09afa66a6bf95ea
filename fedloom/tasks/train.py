"""Step "train": the clients of one shard fit the model; their updates leave as one weighted sum.

With secure aggregation nothing of an update leaves: it stays, quantised, in the client's own folder, and the step says
only who is ready.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from fedloom.specs.canonical import restore, sha256
from fedloom.tasks.client import ClientUpdate, DropoutError, Order, fit, length, receive
from fedloom.tasks.client_data import Windows
from fedloom.tasks.client_home import client_folder
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.dropouts import answer_of
from fedloom.tasks.masked.session import UPDATE, close_earlier, masking, own_folder, store_messages
from fedloom.tasks.model_store import model_key
from fedloom.tasks.models import State, build_model
from fedloom.tasks.privacy.mechanism import own_variance
from fedloom.tasks.privacy.noise import noise_source, own_secret, skellam
from fedloom.tasks.scaffold.client import Controls
from fedloom.tasks.scaffold.shard import ShardControls
from fedloom.tasks.secure_aggregation.quantise import Quantiser
from fedloom.tasks.seeds import seed_sequence
from fedloom.tasks.select import shard_clients
from fedloom.tasks.shard_sum import ShardSum
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Train every client of the shard, in the order of their ids.

    A client whose data cannot be read, that is late, or whose update is not finite is a dropout with its reason.
    """
    run = place.run
    order = read_order(place)
    start = receive(order, run.store.read(model_key(order.model_digest), expect=order.model_digest))
    with repeatable(order.threads, 0):
        model = build_model(order.model)
    shard = _Shard(place, order, time.monotonic(), start, model, ShardControls(place, order, model))
    given, dropouts, ready = ShardSum(place), list[dict[str, str]](), dict[str, bytes]()
    for client in shard_clients(place):
        trained = answer_of(client, dropouts, partial(shard.train, client))
        if trained is None:
            continue
        if run.recipe.masking is not None:
            ready[client] = b""
            continue
        given.add(client, trained.update, trained.weight, trained.norm)
        shard.variates.keep(client, trained.controls, trained.update, trained.weight)
    if run.recipe.masking is not None:
        return StepResult({"clients": len(ready), "dropouts": dropouts}, {"messages": store_messages(place, ready)})
    sent = order.model_bytes * len(given.figures) + shard.variates.bytes_up
    outputs = {**given.outputs, "dropouts": dropouts, "bytes_up": sent}
    return StepResult(outputs, {**given.write(), **shard.variates.write()})


@dataclass(frozen=True)
class _Trained:
    """A client's update, the control variates it trained with, its weight and its L2 norm."""

    update: ClientUpdate
    controls: Controls | None
    weight: float
    norm: float


@dataclass(frozen=True)
class _Shard:
    """What the clients of a shard train with; `started` is when it began, by the monotonic clock."""

    place: Place
    order: Order
    started: float
    start: State
    model: nn.Module
    variates: ShardControls

    def train(self, client: str) -> _Trained:
        """Let one client train; under masks, its update stays in its own folder."""
        place, run = self.place, self.place.run
        order = within_deadline(self.order, self.started)
        data = run.fleet.data[run.fleet.rows[client]]
        windows = run.windows.read(data, run.fleet.root, order.inputs, order.training.client_timeout_s)
        own_model = copy.deepcopy(self.model)  # nothing of one client, such as a counter, reaches the next
        controls, noise = self.variates.of(client), own_noise(place, order, client, windows, "train")
        update = fit(order, client, self.start, windows, own_model, noise, controls)
        weight, norm = client_weight(place, client, update), length(update.delta)
        if not math.isfinite(norm + update.loss):  # one such number would be in everyone's sum
            raise DropoutError("the update is not finite")
        if run.recipe.masking is not None:
            keep_update(place, client, update, weight, own_noise(place, order, client, windows, "sum"))
        return _Trained(update, controls, weight, norm)


def within_deadline(order: Order, started: float) -> Order:
    """The order with no more time for a client than its shard has left.

    Args:
        order: As the server gave it.
        started: When the shard began, by the monotonic clock.

    Raises:
        DropoutError: when there is no time left.
    """
    deadline = order.training.shard_deadline_s
    if deadline is None:
        return order
    left = deadline - (time.monotonic() - started)
    if left <= 0:
        raise DropoutError(f"late: the shard's deadline of {deadline:g} s has passed")
    return replace(order, training=replace(order.training, client_timeout_s=min(left, order.training.client_timeout_s)))


def read_order(place: Place) -> Order:
    """The order of the round, as a client far away would read it.

    Raises:
        StoreError: when it is damaged.
    """
    return restore(Order, json.loads(place.file("distribute", "order")))


def own_noise(place: Place, order: Order, client: str, windows: Windows, purpose: str) -> np.random.Generator | None:
    """Noise that only this client knows, for this model and these data; None where the job asks for no privacy."""
    if order.privacy is None:
        return None
    secret = own_secret(client_folder(place.run.fleet.fleet_id, client))
    labels = b"" if windows.y is None else windows.y.tobytes()
    data = sha256(windows.x.tobytes() + labels)
    return noise_source(secret, purpose, place.run.run_id, order.round, order.model_digest, data)


def keep_update(
    place: Place, client: str, update: ClientUpdate, weight: float, noise: np.random.Generator | None
) -> None:
    """Quantise an update and put it into the client's own folder, for the step that masks it.

    Where clients are to be protected as a whole, each adds its part of the noise on their sum.

    The rounding is drawn from the job's seed: it hides nothing, and a repeated run must round alike.
    """
    rules = masking(place)
    close_earlier(place, client)
    rng = np.random.default_rng(seed_sequence(place.run.recipe.seed, "round", place.round, client))
    flat = torch.cat([update.delta[name].flatten() for name in sorted(update.delta)]).numpy()
    encoded = Quantiser(rules.clip, rules.bits, rules.ring_bits, rules.weight_max).encode(flat, weight, rng)
    privacy = place.run.recipe.privacy
    if privacy is not None and privacy.unit == "client":
        assert noise is not None
        drawn = skellam(own_variance(privacy, rules), len(flat), noise)
        encoded[: len(flat)] += drawn.astype(encoded.dtype)
    own_folder(place, client).save(UPDATE, encoded.tobytes())


def client_weight(place: Place, client: str, update: ClientUpdate) -> float:
    """Weight of a client in the mean: its windows, its value in a column of the roster, or one.

    Weights that follow from comparing updates are found where these are compared; until then they are one.
    """
    recipe, fleet = place.run.recipe.aggregation, place.run.fleet
    if recipe.weights == "custom" and recipe.weight_column is not None:
        return float(fleet.attributes[recipe.weight_column][fleet.rows[client]])  # type: ignore[arg-type]
    return float(update.samples) if recipe.weights == "num_samples" else 1.0
