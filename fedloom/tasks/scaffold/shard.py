"""The control variates of a shard's clients, while it trains.

The variate with which a client leaves a round is an object of its own in the run store, named by its SHA-256. It
counts from the moment that the round's aggregate names it: that of a round in which the client was lost, or too few
took part, is never read.
"""

from __future__ import annotations

import json

import torch
from torch import nn

from fedloom.specs.canonical import sha256
from fedloom.tasks.client import ClientUpdate, Order
from fedloom.tasks.model_store import MODEL_SUFFIX, bytes_to_tensors, tensors_to_bytes
from fedloom.tasks.models import State
from fedloom.tasks.scaffold.client import Controls
from fedloom.tasks.step import Place, Run
from fedloom.tasks.store import Stored

ALGORITHM = "SCAFFOLD"


class ShardControls:
    """Hands each client its variates, and sums how they changed; does nothing for another algorithm."""

    def __init__(self, place: Place, order: Order, model: nn.Module) -> None:
        self._place = place
        self._on = order.training.algorithm == ALGORITHM
        self._known: dict[str, str] = {}
        self._server: State = {}
        self._change: State = {}
        self._kept: dict[str, dict[str, float | str]] = {}
        self.bytes_up = 0
        if self._on:
            zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
            self._zeros = {name: zeros[name] for name in sorted(zeros)}
            self._server = self._zeros
            if order.control_digest is not None:
                self._known = json.loads(place.file("distribute", "controls"))
                self._server = read_control(place.run, None, order.control_digest)

    def of(self, client: str) -> Controls | None:
        """The variates with which a client trains; its own is zero until an update of it has counted."""
        if not self._on:
            return None
        own = self._known.get(client)
        return Controls(self._server, self._zeros if own is None else read_control(self._place.run, client, own))

    def keep(self, client: str, before: Controls | None, update: ClientUpdate, weight: float) -> None:
        """Keep a client's new variate, and add weight · change to the shard's sum, in float64."""
        if before is None or update.control is None:
            return
        stored = write_control(self._place.run, client, update.control)
        self._kept[client] = {"sha256": stored.sha256, "weight": weight}
        self.bytes_up += stored.bytes
        for name, new in update.control.items():
            change = (new.double() - before.own[name].double()) * weight
            self._change[name] = self._change[name] + change if name in self._change else change

    def write(self) -> dict[str, Stored]:
        """Write the sum, and which variate each client has now."""
        if not self._kept:
            return {}
        store, name = self._place.run.store, f"train/shard-{self._place.shard:05d}"
        return {
            "control": store.write(self._place.key(f"{name}.control.safetensors"), tensors_to_bytes(self._change)),
            "controls": store.write_json(self._place.key(f"{name}.controls.json"), self._kept),
        }


def write_control(run: Run, client: str | None, control: State) -> Stored:
    """Store a variate of a client; None for the server's."""
    return run.store.write_content(_folder(run, client), MODEL_SUFFIX, tensors_to_bytes(control))


def read_control(run: Run, client: str | None, digest: str) -> State:
    """Read a variate.

    Raises:
        StoreError: when it is missing or damaged.
    """
    key = f"{_folder(run, client)}/{digest}{MODEL_SUFFIX}"
    return bytes_to_tensors(run.store.read(key, expect=digest), key)


def _folder(run: Run, client: str | None) -> str:
    """Ids may hold any character, so their hash is the name."""
    return run.key("scaffold", "server" if client is None else sha256(client.encode())[:32])
