"""What clients and server say to each other, as bytes: strict JSON, and one vector that is raw ring elements.

Everything names its session. A message that does not parse, or is of another session, is refused.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedloom.specs.canonical import canonical_json, sha256
from fedloom.tasks.secure_aggregation.identity import Registry
from fedloom.tasks.secure_aggregation.masks import Ring
from fedloom.tasks.secure_aggregation.quantise import ring_type

SESSION_BYTES = 32
_VERSION = "fedloom secure aggregation 1"

Key = Annotated[bytes, Field(min_length=32, max_length=32)]
Signature = Annotated[bytes, Field(min_length=64, max_length=64)]
Share = Annotated[bytes, Field(min_length=33, max_length=33)]
Sealed = Annotated[bytes, Field(max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=1024)]
M = TypeVar("M", bound="Message")


class MessageError(ValueError):
    """Bytes that are no message of this session; the text says what is wrong, and shows none of them."""


class Message(BaseModel):
    """What every message has."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,  # some carry shares, which must not reach a traceback
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    session: Key

    def encode(self) -> bytes:
        """The message as it travels."""
        return self.model_dump_json().encode()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session.hex()[:12]}…)"

    __str__ = __repr__


class Terms(Message):
    """What all parties of a session agree on before it begins.

    Attributes:
        session: SHA-256 over everything below and the identity keys of the clients.
        context: What the sum is for: plan digest, run, round, attempt.
        clients: The cohort, sorted.
        neighbours: Clients that each client shares its secrets with (k).
        threshold: Shares that open a secret (t).
        survivors: Fewest clients whose sum may be opened.
        ring_bits: 32 or 64.
        length: Elements of a vector.
    """

    context: str
    clients: tuple[Name, ...]
    neighbours: Annotated[int, Field(ge=1)]
    threshold: Annotated[int, Field(ge=2)]
    survivors: Annotated[int, Field(ge=3)]
    ring_bits: Annotated[int, Field(multiple_of=32, ge=32, le=64)]
    length: Annotated[int, Field(ge=1)]


class Advert(Message):
    """S0: a client's fresh keys of the session, signed with its identity key."""

    client: Name
    channel: Key
    mask: Key
    signature: Signature

    def signed(self) -> bytes:
        """The bytes under the signature."""
        return b"advert" + self.session + canonical_json([self.client, self.channel.hex(), self.mask.hex()])


class ShareRequest(Message):
    """To S1: the adverts of a client's neighbours."""

    adverts: tuple[Advert, ...]


class Shares(Message):
    """S1: a client's secrets, shared among its neighbours and sealed for each of them.

    Attributes:
        commitment: SHA-256 of the self-mask's seed and the session, so that wrong shares of it are noticed.
        sealed: By neighbour, AES-GCM of a share of the self-mask's seed and one of the mask key.
    """

    client: Name
    commitment: Key
    sealed: dict[Name, Sealed]


class MaskRequest(Message):
    """To S2: what the neighbours sealed for a client."""

    sealed: dict[Name, Sealed]


class SurvivorsRequest(Message):
    """To S3: whose vectors arrived, and whose did not after they had shared their secrets."""

    alive: tuple[Name, ...]
    dropped: tuple[Name, ...]

    def signed(self) -> bytes:
        """What clients sign to agree."""
        return b"survivors" + self.session + canonical_json([self.alive, self.dropped])


class Confirmation(Message):
    """S3: a client's signature of the survivors that it was told."""

    client: Name
    signature: Signature


class RevealRequest(Message):
    """To S4: the confirmations of a client's neighbours."""

    signatures: dict[Name, Signature]


class Reveal(Message):
    """S4: shares of the self-mask seeds of survivors, and of the mask keys of those who dropped out."""

    client: Name
    self_mask: dict[Name, Share]
    mask_key: dict[Name, Share]


def decode(kind: type[M], data: bytes, session: bytes | None) -> M:
    """Read a message.

    Args:
        kind: What it must be.
        data: Its bytes.
        session: The session it must be of; None to take any.

    Raises:
        MessageError: when it is not.
    """
    try:
        message = kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise MessageError(f"no {kind.__name__}: {at}: {first['msg']}" if at else f"no {kind.__name__}") from None
    if session is not None and message.session != session:
        raise MessageError(f"a {kind.__name__} of another session")
    return message


def encode_vector(session: bytes, vector: Ring) -> bytes:
    """S2: a masked vector."""
    return b"".join((session, vector.astype(vector.dtype.newbyteorder("<"), copy=False).data))


def decode_vector(data: bytes, terms: Terms) -> Ring:
    """Read a masked vector, without copying it.

    Raises:
        MessageError: when it is of another session or length.
    """
    if data[:SESSION_BYTES] != terms.session:
        raise MessageError("a masked vector of another session")
    expected = terms.length * terms.ring_bits // 8
    if len(data) - SESSION_BYTES != expected:
        raise MessageError(f"a masked vector of {len(data) - SESSION_BYTES} bytes, expected {expected}")
    stored = np.dtype(ring_type(terms.ring_bits)).newbyteorder("<")
    vector: Ring = np.frombuffer(data, stored, offset=SESSION_BYTES).astype(ring_type(terms.ring_bits), copy=False)
    return vector


def make_terms(
    registry: Registry,
    context: str,
    clients: tuple[str, ...],
    neighbours: int,
    threshold: int,
    survivors: int,
    ring_bits: int,
    length: int,
) -> Terms:
    """The terms of a new session; its id follows from them and from the identity keys of its clients.

    Raises:
        IdentityError: when a client has no valid identity key.
    """
    made = Terms(
        session=bytes(SESSION_BYTES),
        context=context,
        clients=tuple(sorted(clients)),
        neighbours=neighbours,
        threshold=threshold,
        survivors=survivors,
        ring_bits=ring_bits,
        length=length,
    )
    return made.model_copy(update={"session": session_id(made, registry)})


def session_id(terms: Terms, registry: Registry) -> bytes:
    """The id that these terms have, given the identity keys of a registry; 32 bytes.

    It covers degree, threshold and sizes too, not only plan, round, attempt and clients: a server that lowers one of
    them makes another session.

    Raises:
        IdentityError: when a client has no valid identity key.
    """
    rest = terms.model_dump(exclude={"session", "clients"})
    keys = [[client, registry.key_of(client)] for client in terms.clients]
    return bytes.fromhex(sha256(_VERSION.encode() + canonical_json({**rest, "clients": keys})))
