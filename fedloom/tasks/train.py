"""Step "train": the clients of one shard fit the model; their updates leave as one weighted sum.

With secure aggregation nothing of an update leaves: it stays, quantised, in the client's own folder, and the step says
only who is ready.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import replace

import numpy as np
import torch

from fedloom.specs.canonical import restore, sha256
from fedloom.tasks.aggregation.updates import Update, write_updates
from fedloom.tasks.client import ClientUpdate, DropoutError, Order, fit, length, receive
from fedloom.tasks.client_data import ClientDataError, Windows
from fedloom.tasks.client_home import client_folder
from fedloom.tasks.determinism import repeatable
from fedloom.tasks.errors import RunError, one_line
from fedloom.tasks.masked.session import UPDATE, close_earlier, masking, own_folder, store_messages
from fedloom.tasks.model_store import model_key, tensors_to_bytes
from fedloom.tasks.models import State, build_model
from fedloom.tasks.privacy.mechanism import own_variance
from fedloom.tasks.privacy.noise import noise_source, own_secret, skellam
from fedloom.tasks.scaffold.shard import ShardControls
from fedloom.tasks.secure_aggregation.quantise import Quantiser
from fedloom.tasks.seeds import seed_sequence
from fedloom.tasks.select import shard_clients
from fedloom.tasks.step import Place, StepResult
from fedloom.tasks.store import Stored


def step(place: Place) -> StepResult:
    """Train every client of the shard, in the order of their ids.

    A client whose data cannot be read, that is late, or whose update is not finite is a dropout with its
    reason. The shard's file holds Σ weight · delta in float64, so that memory does not grow with the clients; only
    where the server must compare single updates are they kept, all of the shard in memory.
    """
    run, recipe = place.run, place.run.recipe
    order = ordered = read_order(place)
    clients = shard_clients(place)
    data_of = dict(zip(run.fleet.clients, run.fleet.data, strict=True))
    start = receive(order, run.store.read(model_key(order.model_digest), expect=order.model_digest))
    with repeatable(order.threads, 0):
        model = build_model(order.model)
    variates = ShardControls(place, order, model)

    total: State = {}
    single: list[Update] = []
    dropouts: list[dict[str, str]] = []
    ready: dict[str, bytes] = {}
    figures: dict[str, dict[str, float]] = {}
    samples, weight, loss, trained, within = 0, 0.0, 0.0, 0, 0
    started = time.monotonic()
    for client in clients:
        try:
            order = within_deadline(ordered, started)
            limit = order.training.client_timeout_s
            windows = run.windows.read(data_of[client], run.fleet.root, order.inputs, limit)
            own_model = copy.deepcopy(model)  # nothing of one client, such as a counter, reaches the next
            controls, noise = variates.of(client), own_noise(place, order, client, windows, "train")
            update = fit(order, client, start, windows, own_model, noise, controls)
            own, norm = client_weight(place, client, update), length(update.delta)
            if not math.isfinite(norm + update.loss):  # one such number would be in everyone's sum
                raise DropoutError("the update is not finite")
            if recipe.masking is not None:
                keep_update(place, client, update, own, own_noise(place, order, client, windows, "sum"))
        except RunError:
            raise
        except (ClientDataError, DropoutError) as reason:
            dropouts.append({"client": client, "reason": str(reason)})
            continue
        except (Exception, SystemExit) as error:  # whatever happens at one client is no concern of the others
            dropouts.append({"client": client, "reason": one_line(error)})
            continue
        if recipe.masking is not None:
            ready[client] = b""
            continue
        if recipe.aggregation.single_updates:
            single.append(single_update(place, client, update, own))
        else:
            add_scaled(total, update.delta, own)
        variates.keep(client, controls, update, own)
        samples, weight, loss = samples + update.samples, weight + own, loss + own * update.loss
        trained, within = trained + 1, within + update.within
        figures[client] = {"samples": update.samples, "loss": update.loss, "norm": norm, "weight": own}
    if recipe.masking is not None:
        return StepResult({"clients": len(ready), "dropouts": dropouts}, {"messages": store_messages(place, ready)})
    return StepResult(
        {
            "clients": trained,
            "dropouts": dropouts,
            "samples": samples,
            "weight": weight,
            # Losses have no noise: where privacy is promised, nobody sees them.
            "loss": loss / weight if weight and recipe.privacy is None else None,
            "bytes_up": order.model_bytes * trained + variates.bytes_up,
        },
        {**write_shard(place, total, single, within, figures), **variates.write()} if trained else {},
    )


def write_shard(
    place: Place, total: State, single: list[Update], within: int, figures: dict[str, dict[str, float]]
) -> dict[str, Stored]:
    """Write what the shard's clients gave, and where the clipping norm follows it, how many were within.

    Neither has noise yet: they go into the store and not into what engines show. Figures of single clients are
    written where no privacy is promised.
    """
    store, privacy, name = place.run.store, place.run.recipe.privacy, f"train/shard-{place.shard:05d}"
    if single:
        files = {"updates": write_updates(place, single)}
    else:
        files = {"update": store.write(place.key(f"{name}.safetensors"), tensors_to_bytes(total))}
    if privacy is not None and privacy.adaptive is not None:
        files["within"] = store.write_json(place.key(f"{name}.within.json"), within)
    if privacy is None:
        files["clients"] = store.write_json(place.key(f"{name}.clients.json"), figures)
    return files


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
        return float(fleet.attributes[recipe.weight_column][fleet.clients.index(client)])  # type: ignore[arg-type]
    return float(update.samples) if recipe.weights == "num_samples" else 1.0


def single_update(place: Place, client: str, update: ClientUpdate, weight: float) -> Update:
    """A client's update as the server sees it; losses have no noise, so it sees none where privacy is promised."""
    seen = place.run.recipe.privacy is None
    loss, before = (update.loss, update.loss_before) if seen else (None, None)
    return Update(client, update.delta, weight, update.samples, loss, before, place.round)


def add_scaled(total: State, delta: State, weight: float) -> None:
    """Add weight · delta to a float64 sum, in place."""
    for name in sorted(delta):
        scaled = delta[name].to(torch.float64) * weight
        if name in total:
            total[name] += scaled
        else:
            total[name] = scaled
