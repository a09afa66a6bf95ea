"""The server of secure aggregation: it passes messages on, adds masked vectors, and opens only their sum.

Each `take_*` closes a stage: what comes later is not part of the session. A message that does not hold makes its
sender a dropout, with the reason; when too few are left, the session ends without a sum, and another attempt with
fresh keys, that is another session, may follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedloom.tasks.secure_aggregation import keys
from fedloom.tasks.secure_aggregation.identity import IdentityError, Registry
from fedloom.tasks.secure_aggregation.masks import Mask
from fedloom.tasks.secure_aggregation.messages import (
    Advert,
    Confirmation,
    M,
    MaskRequest,
    MessageError,
    Reveal,
    RevealRequest,
    ShareRequest,
    Shares,
    SurvivorsRequest,
    Terms,
    decode,
)
from fedloom.tasks.secure_aggregation.shamir import ShareError, combine

Messages = Mapping[str, bytes]


class AbortError(Exception):
    """The session ends without a sum; the message says why. A new session may follow."""


@dataclass
class Server:
    """The server's side of one session.

    Attributes:
        terms: The session.
        registry: The identity keys of the fleet.
        adverts: Who advertised keys (S0).
        shares: Who shared secrets (S1).
        alive: Whose masked vectors arrived (S2).
        confirmations: Who agreed on the survivors (S3).
        reveals: Who revealed shares (S4).
        refused: Why the message of a client was not taken.
    """

    terms: Terms
    registry: Registry
    adverts: dict[str, Advert] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)
    alive: tuple[str, ...] = ()
    confirmations: dict[str, Confirmation] = field(default_factory=dict)
    reveals: dict[str, Reveal] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._neighbours = keys.ring_neighbours(self.terms.clients, self.terms.neighbours, self.terms.session)

    def take_adverts(self, messages: Messages) -> None:
        """Close S0.

        Raises:
            AbortError: when too few clients are left.
        """

        def check(client: str, advert: Advert) -> None:
            if advert.client != client:
                raise MessageError(f"an advert of {advert.client!r}")
            self.registry.check(client, advert.signed(), advert.signature)

        self.adverts = self._take(Advert, messages, set(self.terms.clients), check)
        self._enough(len(self.adverts), "advertised keys")

    def share_request(self, client: str) -> bytes:
        """What a client needs for S1."""
        adverts = tuple(self.adverts[other] for other in self._neighbours[client] if other in self.adverts)
        return ShareRequest(session=self.terms.session, adverts=adverts).encode()

    def take_shares(self, messages: Messages) -> None:
        """Close S1.

        Raises:
            AbortError: when too few clients are left.
        """

        def check(client: str, shares: Shares) -> None:
            expected = {other for other in self._neighbours[client] if other in self.adverts}
            if shares.client != client or shares.sealed.keys() != expected:
                raise MessageError("shares that are not for its neighbours")

        self.shares = self._take(Shares, messages, set(self.adverts), check)
        self._enough(len(self.shares), "shared their secrets")

    def mask_request(self, client: str) -> bytes:
        """What a client needs for S2."""
        sealed = {other: self.shares[other].sealed[client] for other in self.partners(client)}
        return MaskRequest(session=self.terms.session, sealed=sealed).encode()

    def partners(self, client: str) -> list[str]:
        """The neighbours with whom a client masks."""
        return [other for other in self._neighbours[client] if other in self.shares]

    def take_masked(self, clients: list[str]) -> None:
        """Close S2: whose masked vectors are in the sum.

        Raises:
            AbortError: when too few clients are left.
        """
        self.alive = tuple(sorted(set(clients) & self.shares.keys()))
        self._enough(len(self.alive), "gave a masked vector")

    @property
    def dropped(self) -> tuple[str, ...]:
        """Who shared secrets and gave no vector."""
        return tuple(sorted(self.shares.keys() - set(self.alive)))

    def survivors_request(self) -> bytes:
        """What every survivor needs for S3."""
        return SurvivorsRequest(session=self.terms.session, alive=self.alive, dropped=self.dropped).encode()

    def take_confirmations(self, messages: Messages) -> None:
        """Close S3.

        Raises:
            AbortError: when too few clients are left.
        """
        signed = SurvivorsRequest(session=self.terms.session, alive=self.alive, dropped=self.dropped).signed()

        def check(client: str, confirmation: Confirmation) -> None:
            self.registry.check(client, signed, confirmation.signature)

        self.confirmations = self._take(Confirmation, messages, set(self.alive), check)
        self._enough(len(self.confirmations), "agreed on the survivors")

    def reveal_request(self, client: str) -> bytes:
        """What a client needs for S4."""
        near = [other for other in self._neighbours[client] if other in self.confirmations]
        signatures = {other: self.confirmations[other].signature for other in near}
        return RevealRequest(session=self.terms.session, signatures=signatures).encode()

    def take_reveals(self, messages: Messages) -> None:
        """Close S4; `masks` says whether the shares are enough."""

        def check(client: str, reveal: Reveal) -> None:
            if reveal.client != client or not reveal.self_mask.keys() <= set(self.alive):
                raise MessageError("shares that nobody asked for")

        self.reveals = self._take(Reveal, messages, set(self.alive), check)

    def masks(self) -> tuple[Mask, ...]:
        """The masks that are still in the sum of the survivors' vectors, as they are to be added to take them out.

        Raises:
            AbortError: when the shares do not open them.
        """
        session, found = self.terms.session, []
        for client in self.alive:
            seed = self._open(client, "self_mask")
            if keys.commitment(seed, session) != self.shares[client].commitment:
                raise AbortError(f"the shares of the self-mask of {client!r} do not fit what it committed to")
            found.append(keys.self_mask(seed, session, negative=True))
        alive = set(self.alive)
        for client in self.dropped:
            partners = [other for other in self.partners(client) if other in alive]
            if not partners:
                continue
            private = self._open(client, "mask_key")
            if keys.public_of(private) != self.adverts[client].mask:
                raise AbortError(f"the shares of the mask key of {client!r} do not fit the key that it advertised")
            for other in partners:
                shared = keys.exchange(private, self.adverts[other].mask)
                found.append(keys.pair_mask(shared, session, other, client, undo=True))
        return tuple(found)

    def _open(self, client: str, kind: str) -> bytes:
        shares = {}
        for other in self._neighbours[client]:
            if other in self.reveals and client in (given := getattr(self.reveals[other], kind)):
                shares[self.terms.clients.index(other) + 1] = given[client]
        try:
            return combine(shares, self.terms.threshold)
        except ShareError as error:
            raise AbortError(f"the secret of {client!r} cannot be opened: {error}") from None

    def _take(
        self, kind: type[M], messages: Messages, expected: set[str], check: Callable[[str, M], None]
    ) -> dict[str, M]:
        taken = {}
        for client in sorted(messages):
            if client not in expected:
                self.refused[client] = f"{client!r} is not part of this stage"
                continue
            try:
                message = decode(kind, messages[client], self.terms.session)
                check(client, message)
            except (MessageError, IdentityError) as error:
                self.refused[client] = str(error)
            else:
                taken[client] = message
        return taken

    def _enough(self, left: int, what: str) -> None:
        if left < self.terms.survivors:
            raise AbortError(f"only {left} clients {what}, {self.terms.survivors} are needed")
