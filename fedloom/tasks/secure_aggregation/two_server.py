"""One-shot additive shares for two servers that do not work together.

A client splits its vector x into r and x - r, where r is the stream of a fresh key: the first server gets the key,
the second the difference, each sealed to that server's own key and signed. Each server adds what it got from the
clients that both name, and the two sums give the sum of the vectors. Clients send once and wait for nothing; one that
drops out costs nothing. Two servers that work together see every vector: this is for fleets with two operators.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedloom.specs.canonical import canonical_json
from fedloom.tasks.secure_aggregation import keys
from fedloom.tasks.secure_aggregation.client import CLOSED, RefusedError
from fedloom.tasks.secure_aggregation.identity import Identity, IdentityError, Registry
from fedloom.tasks.secure_aggregation.keys import SessionKeyError
from fedloom.tasks.secure_aggregation.masks import Mask, Ring, apply
from fedloom.tasks.secure_aggregation.messages import MessageError, Terms, decode_vector, encode_vector, session_id
from fedloom.tasks.secure_aggregation.parameters import MIN_CLIENTS
from fedloom.tasks.secure_aggregation.quantise import ring_type
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.secure_aggregation.state import State

FIRST, SECOND = "first", "second"
_SIGNATURE, _KEY = 64, 32


def split_vector(
    terms: Terms, client: str, identity: Identity, registry: Registry, servers: Mapping[str, bytes], vector: Ring
) -> dict[str, bytes]:
    """A client's message to each server.

    Args:
        terms: The session; degree and threshold do not count here.
        client: The client's id.
        identity: Its identity key.
        registry: The identity keys of its fleet, from a source that it trusts.
        servers: X25519 public keys of `FIRST` and `SECOND`, from a source that it trusts.
        vector: Ring elements of the session's length; unchanged.

    Raises:
        MessageError: when the terms are not safe or the vector does not fit them.
        IdentityError: when a client of the session has no valid identity key.
    """
    if len(terms.clients) < MIN_CLIENTS or terms.survivors < MIN_CLIENTS or client not in terms.clients:
        raise MessageError(f"the session must have {client!r} and at least {MIN_CLIENTS} clients")
    if session_id(terms, registry) != terms.session:
        raise MessageError("the session's id does not follow from its terms and the registered identity keys")
    if len(servers) != 2 or servers[FIRST] == servers[SECOND]:
        raise MessageError("the two servers must have different keys")
    if vector.shape != (terms.length,) or vector.dtype != np.dtype(ring_type(terms.ring_bits)):
        raise MessageError(f"the vector has {vector.size} elements of {vector.dtype}, which is not the session's")
    stream = os.urandom(_KEY // 2)
    rest = vector.copy()
    apply(rest, [Mask(stream, negative=True)])
    plain = {FIRST: stream, SECOND: encode_vector(terms.session, rest)}
    messages = {}
    for server, public in sorted(servers.items()):
        ephemeral = X25519PrivateKey.generate()
        shared = keys.exchange(ephemeral.private_bytes_raw(), public)
        sealed = ephemeral.public_key().public_bytes_raw() + keys.seal(
            shared, terms.session, client, server, plain[server]
        )
        messages[server] = identity.sign(_signed(terms, client, server, sealed)) + sealed
    return messages


def split_once(
    terms: Terms,
    client: str,
    identity: Identity,
    registry: Registry,
    servers: Mapping[str, bytes],
    state: State,
    vector: bytes | None,
) -> dict[str, bytes]:
    """`split_vector`, and the same messages whenever a session asks again: they are kept before they leave.

    Args:
        terms: The session.
        client: The client's id.
        identity: Its identity key.
        registry: The identity keys of its fleet.
        servers: As `split_vector` takes them.
        state: What the client keeps of the session.
        vector: Bytes of the ring elements; not needed when the session asked before.

    Raises:
        RefusedError: when there is no vector, or the session was closed.
        MessageError: when the terms are not safe or the vector does not fit them.
        IdentityError: when a client of the session has no valid identity key.
    """
    if state.load(CLOSED) is not None:
        raise RefusedError(f"{client}: the session is closed")
    kept = state.load("split")
    if kept is None:
        if vector is None:
            raise RefusedError(f"{client}: its update is gone")
        elements: Ring = np.frombuffer(vector, ring_type(terms.ring_bits))
        made = split_vector(terms, client, identity, registry, servers, elements)
        kept = len(made[FIRST]).to_bytes(4, "big") + made[FIRST] + made[SECOND]
        state.save("split", kept)
    end = 4 + int.from_bytes(kept[:4], "big")
    return {FIRST: kept[4:end], SECOND: kept[end:]}


@dataclass
class HalfServer:
    """One of the two servers, in one session.

    Attributes:
        which: `FIRST` or `SECOND`.
        terms: The session.
        registry: The identity keys of the fleet.
        private: Its X25519 private key, 32 bytes.
        state: Where it notes whose sum it gave: it gives one sum in a session.
        refused: Why the message of a client was not taken.
    """

    which: str
    terms: Terms
    registry: Registry
    private: bytes = field(repr=False)
    state: State = field(repr=False)
    refused: dict[str, str] = field(default_factory=dict)

    def check(self, messages: Mapping[str, bytes]) -> list[str]:
        """The clients whose messages hold, sorted; only those that both servers name may be added.

        Raises:
            AbortError: when the terms are not those that clients sign.
        """
        self._agreed()
        held = []
        for client in sorted(messages):
            try:
                self._open(client, messages[client])
            except (MessageError, IdentityError, SessionKeyError) as error:
                self.refused[client] = str(error)
            else:
                held.append(client)
        return held

    def add(self, messages: Mapping[str, bytes], clients: list[str]) -> Ring:
        """This server's half of the sum over some clients.

        Raises:
            AbortError: when there are too few, a message does not hold, or another sum was given before in this
                session.
        """
        self._agreed()
        if len(set(clients)) < max(self.terms.survivors, MIN_CLIENTS):
            raise AbortError(f"only {len(set(clients))} clients are left, {self.terms.survivors} are needed")
        named = canonical_json(sorted(set(clients)))
        before = self.state.load("sum")
        if before is not None and before != named:
            raise AbortError("another sum was given in this session: two sums would tell one client from the rest")
        total: Ring = np.zeros(self.terms.length, ring_type(self.terms.ring_bits))
        for client in sorted(set(clients)):
            try:
                opened = self._open(client, messages[client])
            except (KeyError, MessageError, IdentityError, SessionKeyError) as error:
                raise AbortError(f"the message of {client!r} does not hold: {error}") from None
            if self.which == FIRST:
                apply(total, [Mask(opened)])
            else:
                total += decode_vector(opened, self.terms)
        self.state.save("sum", named)
        return total

    def _agreed(self) -> None:
        """Clients sign the session's id: whoever changes its terms, such as the fewest survivors, changes that too."""
        try:
            sound = session_id(self.terms, self.registry) == self.terms.session
        except IdentityError as error:
            raise AbortError(str(error)) from None
        if not sound:
            raise AbortError("the session's id does not follow from its terms and the registered identity keys")

    def _open(self, client: str, message: bytes) -> bytes:
        if client not in self.terms.clients:
            raise MessageError(f"{client!r} is not part of the session")
        signature, sealed = message[:_SIGNATURE], message[_SIGNATURE:]
        self.registry.check(client, _signed(self.terms, client, self.which, sealed), signature)
        shared = keys.exchange(self.private, sealed[:_KEY])
        opened = keys.unseal(shared, self.terms.session, client, self.which, sealed[_KEY:])
        if self.which == FIRST and len(opened) != _KEY // 2:
            raise MessageError("no key of a stream")
        if self.which == SECOND:
            decode_vector(opened, self.terms)
        return opened


def _signed(terms: Terms, client: str, server: str, sealed: bytes) -> bytes:
    return b"half" + terms.session + canonical_json([client, server, sha256(sealed).hexdigest()])
