"""A client of secure aggregation: one answer to one question at each stage, and nothing to a server that cheats.

The stages of SecAgg+ (Bell et al. 2020; Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving
machine learning"): S0 `advertise`, S1 `share`, S2 `mask`, S3 `confirm`, S4 `reveal`. Every request and its answer are
kept in the client's own folder before the answer leaves. The same request gets the same bytes again, another one for
the same stage is refused, and when the secrets were revealed they are deleted and the session is closed for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NoReturn

import numpy as np

from fedloom.tasks.secure_aggregation import keys
from fedloom.tasks.secure_aggregation.identity import Identity, IdentityError, Registry
from fedloom.tasks.secure_aggregation.keys import SessionKeyError
from fedloom.tasks.secure_aggregation.masks import Ring, apply
from fedloom.tasks.secure_aggregation.messages import (
    Advert,
    Confirmation,
    MaskRequest,
    MessageError,
    Reveal,
    RevealRequest,
    ShareRequest,
    Shares,
    SurvivorsRequest,
    Terms,
    decode,
    encode_vector,
    session_id,
)
from fedloom.tasks.secure_aggregation.parameters import DEFAULT, MIN_CLIENTS, Assumptions, ParameterError, choose
from fedloom.tasks.secure_aggregation.quantise import ring_type
from fedloom.tasks.secure_aggregation.shamir import SHARE_BYTES, split
from fedloom.tasks.secure_aggregation.state import State

_SECRETS, _CHANNELS = "secrets", "channels"
CLOSED = "closed"
"""Name in a client's state of a session that it will not speak in again; nothing else is kept of it."""
_SEED = 32


class RefusedError(Exception):
    """The client does not answer, because the request could cost it its secret; the message says why."""


@dataclass(frozen=True)
class Client:
    """One client in one session.

    Attributes:
        name: Its id.
        identity: Its identity key.
        registry: The identity keys of its fleet, from a source that it trusts: never from the server.
        state: What it keeps of this session, and nobody else sees.
        assumptions: The least that it takes a server's threshold for safe with.
        survivors: Fewest clients in a sum that it takes part in: its share of the noise may count on so many.
    """

    name: str
    identity: Identity = field(repr=False)
    registry: Registry = field(repr=False)
    state: State = field(repr=False)
    assumptions: Assumptions = DEFAULT
    survivors: int = MIN_CLIENTS

    def advertise(self, terms: bytes) -> bytes:
        """S0: check the terms of a new session and make its keys.

        Raises:
            RefusedError: when the terms are not safe, or the session is not new.
        """
        return self._answer("advertise", terms, lambda: self._advertise(decode(Terms, terms, None)))

    def share(self, request: bytes) -> bytes:
        """S1: check the neighbours' adverts and share the secrets among them.

        Raises:
            RefusedError: when an advert is not of a neighbour or not signed by it, or there are too few.
        """
        return self._answer("share", request, lambda: self._share(request))

    def mask(self, request: bytes, vector: Ring) -> bytes:
        """S2: check what the neighbours sealed, and mask the vector.

        Args:
            request: From the server.
            vector: Ring elements of the session's length; unchanged.

        Raises:
            RefusedError: when a sealed share was changed, there are too few, or the vector does not fit.
        """
        return self._answer("mask", request, lambda: self._mask(request, vector))

    def confirm(self, request: bytes) -> bytes:
        """S3: sign the survivors that the server names.

        Raises:
            RefusedError: when their sum could say too much.
        """
        return self._answer("confirm", request, lambda: self._confirm(request))

    def reveal(self, request: bytes) -> bytes:
        """S4: give, for each neighbour, one kind of share, once enough neighbours agreed on the survivors.

        Raises:
            RefusedError: when too few signed the same survivors.
        """
        answer = self._answer("reveal", request, lambda: self._reveal(request))
        for secret in (_SECRETS, _CHANNELS, "mask"):
            self.state.delete(secret)
        return answer

    def _answer(self, stage: str, request: bytes, answer: Callable[[], bytes]) -> bytes:
        if self.state.load(CLOSED) is not None:
            raise RefusedError(f"{self.name}: the session is closed")
        digest = sha256(request).digest()
        kept = self.state.load(stage)
        if kept is not None:
            if kept[:32] != digest:
                raise RefusedError(f"{self.name}: asked twice at stage {stage!r}, with different requests")
            return kept[36 + int.from_bytes(kept[32:36], "big") :]
        if self.state.load("reveal") is not None:
            raise RefusedError(f"{self.name}: the session is closed")
        try:
            made = answer()
        except (MessageError, SessionKeyError, IdentityError, ParameterError) as error:
            raise RefusedError(f"{self.name}: {error}") from None
        self.state.save(stage, b"".join((digest, len(request).to_bytes(4, "big"), request, made)))
        return made

    def _asked(self, stage: str) -> bytes:
        """The request of an earlier stage."""
        kept = self.state.load(stage)
        if kept is None:
            self._refuse(f"stage {stage!r} must come before")
        return kept[36 : 36 + int.from_bytes(kept[32:36], "big")]

    def _secrets(self) -> tuple[bytes, bytes, bytes]:
        kept = self.state.load(_SECRETS)
        if kept is None:
            self._refuse("the secrets of this session are gone")
        return kept[:_SEED], kept[_SEED : 2 * _SEED], kept[2 * _SEED :]

    def _terms(self) -> Terms:
        return decode(Terms, self._asked("advertise"), None)

    def _neighbours(self, terms: Terms) -> tuple[str, ...]:
        return keys.ring_neighbours(terms.clients, terms.neighbours, terms.session)[self.name]

    def _refuse(self, why: str) -> NoReturn:
        raise RefusedError(f"{self.name}: {why}")

    def _advertise(self, terms: Terms) -> bytes:
        self._check_terms(terms)
        if self.state.load(_SECRETS) is None:
            self.state.save(_SECRETS, os.urandom(3 * _SEED))
        channel, mask, _ = self._secrets()
        advert = Advert(
            session=terms.session,
            client=self.name,
            channel=keys.public_of(channel),
            mask=keys.public_of(mask),
            signature=bytes(64),
        )
        return advert.model_copy(update={"signature": self.identity.sign(advert.signed())}).encode()

    def _check_terms(self, terms: Terms) -> None:
        clients = terms.clients
        if list(clients) != sorted(set(clients)) or self.name not in clients:
            self._refuse("the cohort is not a sorted list of different clients with this one among them")
        if terms.survivors < max(self.survivors, MIN_CLIENTS) or terms.survivors > len(clients):
            self._refuse(f"a sum of {terms.survivors} of {len(clients)} clients is not safe")
        least = choose(len(clients), self.assumptions)
        if terms.neighbours < least.neighbours:
            self._refuse(f"{terms.neighbours} neighbours are fewer than {least.neighbours}")
        if terms.neighbours != len(clients) - 1 and terms.neighbours % 2:
            self._refuse(f"no ring gives each client {terms.neighbours} neighbours")
        if not _floor(terms.neighbours, least.neighbours, least.lowest_threshold) <= terms.threshold:
            self._refuse(f"a threshold of {terms.threshold} is below {least.lowest_threshold}")
        if terms.threshold > terms.neighbours:
            self._refuse(f"a threshold of {terms.threshold} is above the number of neighbours, {terms.neighbours}")
        if session_id(terms, self.registry) != terms.session:
            self._refuse("the session's id does not follow from its terms and the registered identity keys")
        if self.registry.key_of(self.name) != self.identity.public:
            self._refuse("its identity key is not the registered one; it was rotated or replaced")

    def _adverts(self, request: bytes, terms: Terms) -> dict[str, Advert]:
        """The neighbours' adverts, checked against the registry."""
        adverts = decode(ShareRequest, request, terms.session).adverts
        found = {advert.client: advert for advert in adverts}
        strangers = found.keys() - set(self._neighbours(terms))
        if len(found) < len(adverts) or strangers:
            self._refuse(f"adverts of clients that are no neighbours, or twice: {sorted(strangers)[:3]}")
        channel, mask, _ = self._secrets()
        used = [keys.public_of(channel), keys.public_of(mask)]
        for advert in adverts:
            if advert.session != terms.session:
                self._refuse(f"the advert of {advert.client!r} is of another session")
            self.registry.check(advert.client, advert.signed(), advert.signature)
            used += [advert.channel, advert.mask]
        if len(set(used)) < len(used):
            self._refuse("two clients advertise the same key")
        if len(found) < terms.threshold:
            self._refuse(f"{len(found)} neighbours are left, {terms.threshold} are needed")
        return found

    def _share(self, request: bytes) -> bytes:
        terms = self._terms()
        adverts = self._adverts(request, terms)
        _, mask, seed = self._secrets()
        self.state.delete(_CHANNELS)  # of a request that was not answered
        channels = self._channels(adverts)
        points = {name: terms.clients.index(name) + 1 for name in adverts}
        of_seed = split(seed, terms.threshold, list(points.values()))
        of_mask = split(mask, terms.threshold, list(points.values()))
        sealed = {
            name: keys.seal(channels[name], terms.session, self.name, name, of_seed[point] + of_mask[point])
            for name, point in sorted(points.items())
        }
        return Shares(
            session=terms.session,
            client=self.name,
            commitment=keys.commitment(seed, terms.session),
            sealed=sealed,
        ).encode()

    def _received(self, request: bytes, terms: Terms, adverts: dict[str, Advert]) -> dict[str, bytes]:
        """The shares that the neighbours sealed for this client."""
        sealed = decode(MaskRequest, request, terms.session).sealed
        strangers = sealed.keys() - adverts.keys()
        if strangers:
            self._refuse(f"shares of clients that are no neighbours: {sorted(strangers)[:3]}")
        channels = self._channels(adverts)
        opened = {
            name: keys.unseal(channels[name], terms.session, name, self.name, sealed[name]) for name in sorted(sealed)
        }
        if any(len(shares) != 2 * SHARE_BYTES for shares in opened.values()):
            self._refuse("a neighbour sealed something that is no pair of shares")
        if len(opened) < terms.threshold:
            self._refuse(f"{len(opened)} neighbours shared their secrets, {terms.threshold} are needed")
        return opened

    def _channels(self, adverts: dict[str, Advert]) -> dict[str, bytes]:
        """The secret with each neighbour, exchanged once and kept: three stages need it."""
        kept, names = self.state.load(_CHANNELS), sorted(adverts)
        if kept is None:
            private, _, _ = self._secrets()
            kept = b"".join(keys.exchange(private, adverts[name].channel) for name in names)
            self.state.save(_CHANNELS, kept)
        return {name: kept[_SEED * i : _SEED * (i + 1)] for i, name in enumerate(names)}

    def _known_adverts(self) -> dict[str, Advert]:
        """The adverts that were checked at S1."""
        return {advert.client: advert for advert in decode(ShareRequest, self._asked("share"), None).adverts}

    def _mask(self, request: bytes, vector: Ring) -> bytes:
        terms, adverts = self._terms(), self._known_adverts()
        if vector.shape != (terms.length,) or vector.dtype != np.dtype(ring_type(terms.ring_bits)):
            self._refuse(
                f"the vector has shape {vector.shape} and type {vector.dtype}, expected {terms.length} "
                f"elements of {terms.ring_bits} bits"
            )
        opened = self._received(request, terms, adverts)
        _, mask, seed = self._secrets()
        masks = [keys.self_mask(seed, terms.session)]
        for name in opened:
            shared = keys.exchange(mask, adverts[name].mask)
            masks.append(keys.pair_mask(shared, terms.session, self.name, name))
        masked = vector.copy()
        apply(masked, masks)
        return encode_vector(terms.session, masked)

    def _confirm(self, request: bytes) -> bytes:
        terms = self._terms()
        named = decode(SurvivorsRequest, request, terms.session)
        alive, dropped = set(named.alive), set(named.dropped)
        if alive & dropped:
            self._refuse(f"{sorted(alive & dropped)[0]!r} is named alive and dropped")
        if len(alive) < len(named.alive) or len(dropped) < len(named.dropped):
            self._refuse("a client is named twice")
        if not alive | dropped <= set(terms.clients):
            self._refuse("a client outside the cohort is named")
        if self.name not in alive:
            self._refuse("it gave a vector and is not named alive")
        if len(alive) < terms.survivors:
            self._refuse(f"{len(alive)} survivors are fewer than {terms.survivors}")
        sharers = set(decode(MaskRequest, self._asked("mask"), None).sealed)
        if sharers - alive - dropped:
            self._refuse(f"nothing is said of {sorted(sharers - alive - dropped)[0]!r}")
        unknown = (alive | dropped) & (set(self._neighbours(terms)) - sharers)
        if unknown:
            self._refuse(f"{sorted(unknown)[0]!r} is named, and its shares never came")
        if len(sharers & alive) < terms.threshold:
            self._refuse(f"{len(sharers & alive)} neighbours survive, {terms.threshold} are needed")
        signature = self.identity.sign(named.signed())
        return Confirmation(session=terms.session, client=self.name, signature=signature).encode()

    def _reveal(self, request: bytes) -> bytes:
        terms = self._terms()
        named = decode(SurvivorsRequest, self._asked("confirm"), None)
        alive, signatures = set(named.alive), decode(RevealRequest, request, terms.session).signatures
        if not signatures.keys() <= alive & set(self._neighbours(terms)):
            self._refuse("confirmations of clients that are no surviving neighbours")
        if len(signatures) < terms.threshold:
            self._refuse(f"{len(signatures)} neighbours agree on the survivors, {terms.threshold} are needed")
        for name, signature in signatures.items():
            self.registry.check(name, named.signed(), signature)
        opened = self._received(self._asked("mask"), terms, self._known_adverts())
        return Reveal(
            session=terms.session,
            client=self.name,
            self_mask={name: shares[:SHARE_BYTES] for name, shares in opened.items() if name in alive},
            mask_key={name: shares[SHARE_BYTES:] for name, shares in opened.items() if name not in alive},
        ).encode()


def _floor(neighbours: int, least_neighbours: int, lowest: int) -> int:
    """The threshold that keeps the margin 2t > k + c when there are more neighbours than the least."""
    return lowest + (neighbours - least_neighbours + 1) // 2
