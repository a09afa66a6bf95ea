"""What the clients of a shard give together: a weighted sum, or their updates one by one where rules compare them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fedloom.tasks.aggregation.updates import Update, write_updates
from fedloom.tasks.client import ClientUpdate
from fedloom.tasks.model_store import tensors_to_bytes
from fedloom.tasks.models import State
from fedloom.tasks.step import Outputs, Place
from fedloom.tasks.store import Stored


@dataclass
class ShardSum:
    """The shard's clients so far.

    Attributes:
        place: The round and the shard.
        total: Σ weight · delta in float64, so that memory does not grow with the clients.
        single: Instead, every update, where the server must compare them.
        figures: What is known of each client.
    """

    place: Place
    total: State = field(default_factory=dict)
    single: list[Update] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: int = 0
    weight: float = 0.0
    loss: float = 0.0
    within: int = 0

    def add(self, client: str, update: ClientUpdate, weight: float, norm: float) -> None:
        """Take a client's update, whose L2 norm is `norm`."""
        if self.place.run.recipe.aggregation.single_updates:
            self.single.append(self._seen(client, update, weight))
        else:
            add_scaled(self.total, update.delta, weight)
        self.samples, self.weight = self.samples + update.samples, self.weight + weight
        self.loss, self.within = self.loss + weight * update.loss, self.within + update.within
        self.figures[client] = {"samples": update.samples, "loss": update.loss, "norm": norm, "weight": weight}

    def _seen(self, client: str, update: ClientUpdate, weight: float) -> Update:
        """An update as the server sees it; losses have no noise, so it sees none where privacy is promised."""
        seen = self.place.run.recipe.privacy is None
        loss, before = (update.loss, update.loss_before) if seen else (None, None)
        return Update(client, update.delta, weight, update.samples, loss, before, self.place.round)

    @property
    def outputs(self) -> Outputs:
        """What engines may know of it."""
        # Losses have no noise: where privacy is promised, nobody sees them.
        shown = self.weight and self.place.run.recipe.privacy is None
        return {
            "clients": len(self.figures),
            "samples": self.samples,
            "weight": self.weight,
            "loss": self.loss / self.weight if shown else None,
        }

    def write(self) -> dict[str, Stored]:
        """Write what the clients gave, and where the clipping norm follows it, how many were within; nothing for none.

        Neither has noise yet: they go into the store and not into what engines show. Figures of single clients are
        written where no privacy is promised.
        """
        if not self.figures:
            return {}
        place, privacy = self.place, self.place.run.recipe.privacy
        store, name = place.run.store, f"train/shard-{place.shard:05d}"
        if self.single:
            files = {"updates": write_updates(place, self.single)}
        else:
            files = {"update": store.write(place.key(f"{name}.safetensors"), tensors_to_bytes(self.total))}
        if privacy is not None and privacy.adaptive is not None:
            files["within"] = store.write_json(place.key(f"{name}.within.json"), self.within)
        if privacy is None:
            files["clients"] = store.write_json(place.key(f"{name}.clients.json"), self.figures)
        return files


def add_scaled(total: State, delta: State, weight: float) -> None:
    """Add weight · delta to a float64 sum, in place."""
    for name in sorted(delta):
        scaled = delta[name].to(torch.float64) * weight
        if name in total:
            total[name] += scaled
        else:
            total[name] = scaled
