"""A fleet with keys, and a session played from end to end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from fedloom.tasks.secure_aggregation.client import Client
from fedloom.tasks.secure_aggregation.identity import Identity, IdentityKey, Registry
from fedloom.tasks.secure_aggregation.masks import Ring, apply
from fedloom.tasks.secure_aggregation.messages import Terms, decode_vector, make_terms
from fedloom.tasks.secure_aggregation.parameters import Assumptions
from fedloom.tasks.secure_aggregation.quantise import ring_type
from fedloom.tasks.secure_aggregation.server import Server
from fedloom.tasks.secure_aggregation.state import MemoryState

SINCE = "2026-01-01T00:00:00+00:00"


@dataclass
class Party:
    """N clients with identity keys, and vectors to add."""

    size: int
    neighbours: int | None = None
    threshold: int | None = None
    survivors: int = 3
    ring_bits: int = 32
    length: int = 5
    context: str = "plan 0, round 1, attempt 1"
    identities: dict[str, Identity] = field(init=False)
    registry: Registry = field(init=False)
    terms: Terms = field(init=False)
    clients: dict[str, Client] = field(init=False)
    server: Server = field(init=False)

    def __post_init__(self) -> None:
        self.identities = {f"c{i:03d}": Identity.generate() for i in range(self.size)}
        self.registry = Registry("fleet", {n: IdentityKey(i.public, SINCE) for n, i in self.identities.items()}, {})
        k = self.size - 1 if self.neighbours is None else self.neighbours
        t = (k + 2) // 2 if self.threshold is None else self.threshold
        self.terms = make_terms(
            self.registry, self.context, tuple(self.identities), max(k, 1), max(t, 2), self.survivors, self.ring_bits,
            self.length,
        )  # fmt: skip
        self.clients = {name: self.client(name) for name in self.identities}
        self.server = Server(self.terms, self.registry)

    def client(self, name: str) -> Client:
        return Client(name, self.identities[name], self.registry, MemoryState(), Assumptions(0.0, 0.0))

    def vector(self, name: str) -> Ring:
        high = 2**self.ring_bits
        rng = np.random.default_rng(int(name[1:]))
        return rng.integers(0, high, self.length, dtype=ring_type(self.ring_bits))

    def plain_sum(self, names: Collection[str]) -> Ring:
        total = np.zeros(self.length, ring_type(self.ring_bits))
        for name in names:
            total += self.vector(name)
        return total

    def advertise(self, gone: Collection[str] = ()) -> None:
        messages = {n: c.advertise(self.terms.encode()) for n, c in self.clients.items() if n not in gone}
        self.server.take_adverts(messages)

    def share(self, gone: Collection[str] = ()) -> None:
        up = [name for name in self.server.adverts if name not in gone]
        self.server.take_shares({n: self.clients[n].share(self.server.share_request(n)) for n in up})

    def mask(self, gone: Collection[str] = ()) -> Ring:
        total = np.zeros(self.length, ring_type(self.ring_bits))
        up = [name for name in self.server.shares if name not in gone]
        for name in up:
            masked = self.clients[name].mask(self.server.mask_request(name), self.vector(name))
            total += decode_vector(masked, self.terms)
        self.server.take_masked(up)
        return total

    def confirm(self, gone: Collection[str] = ()) -> None:
        request = self.server.survivors_request()
        self.server.take_confirmations(
            {n: self.clients[n].confirm(request) for n in self.server.alive if n not in gone}
        )

    def reveal(self, gone: Collection[str] = ()) -> None:
        up = [name for name in self.server.confirmations if name not in gone]
        self.server.take_reveals({n: self.clients[n].reveal(self.server.reveal_request(n)) for n in up})

    def play(self, *gone: Collection[str]) -> Ring:
        """The whole session; `gone` says who has vanished before each of the five stages."""
        s0, s1, s2, s3, s4 = (*gone, *([()] * (5 - len(gone))))
        self.advertise(s0)
        self.share(s1)
        total = self.mask(s2)
        self.confirm(s3)
        self.reveal(s4)
        apply(total, self.server.masks())
        return total

    def until_confirm(self) -> Ring:
        self.advertise()
        self.share()
        return self.mask()
