"""Keys of one session: exchange, derivation, sealing of shares, and who neighbours whom."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedloom.specs.canonical import canonical_json, sha256
from fedloom.tasks.secure_aggregation.masks import KEY_BYTES, Mask

_NONCE = bytes(12)
"""A key seals one message only: of one session, from one client to one other."""


class SessionKeyError(ValueError):
    """A key or a sealed share that was tampered with."""


def derive(secret: bytes, session: bytes, *purpose: str, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 of a secret, bound to a session and a purpose."""
    return HKDF(SHA256(), length, salt=session, info=canonical_json(purpose)).derive(secret)


def exchange(private: bytes, public: bytes) -> bytes:
    """The X25519 secret of two parties, 32 bytes.

    Raises:
        SessionKeyError: when the public key is a point of small order.
    """
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise SessionKeyError("a public key gives no shared secret") from None


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal(shared: bytes, session: bytes, source: str, target: str, plain: bytes) -> bytes:
    """AES-GCM from one client to another; session, source and target are authenticated."""
    key = derive(shared, session, "channel", source, target)
    return AESGCM(key).encrypt(_NONCE, plain, session + canonical_json([source, target]))


def unseal(shared: bytes, session: bytes, source: str, target: str, sealed: bytes) -> bytes:
    """Open what `seal` made.

    Raises:
        SessionKeyError: when it was changed, or is for someone else.
    """
    key = derive(shared, session, "channel", source, target)
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, session + canonical_json([source, target]))
    except InvalidTag:
        raise SessionKeyError(f"what {source!r} sealed for {target!r} was changed or is for another") from None


def commitment(seed: bytes, session: bytes) -> bytes:
    """Binds a client to the seed of its self-mask; 32 bytes."""
    return bytes.fromhex(sha256(b"self" + session + seed))


def self_mask(seed: bytes, session: bytes, negative: bool = False) -> Mask:
    """The mask that a client's own seed gives."""
    return Mask(derive(seed, session, "self"), negative)


def pair_mask(shared: bytes, session: bytes, mine: str, other: str, undo: bool = False) -> Mask:
    """The mask between two clients, as `mine` adds it: the first in order adds, the second subtracts."""
    return Mask(derive(shared, session, "pair"), (mine > other) != undo)


def ring_neighbours(clients: Sequence[str], degree: int, session: bytes) -> dict[str, tuple[str, ...]]:
    """The neighbours of every client, sorted.

    Clients stand on a ring in an order that follows from the session, each joined to degree/2 on both sides; with
    degree N - 1, everyone to everyone.

    Raises:
        ValueError: when there is no such graph.
    """
    if degree == len(clients) - 1:
        return {client: tuple(other for other in clients if other != client) for client in clients}
    if degree % 2 or not 0 < degree < len(clients):
        raise ValueError(f"no ring of {len(clients)} clients gives each {degree} neighbours")
    key = derive(session, session, "graph", length=32)
    ring = sorted(clients, key=lambda client: sha256(key + client.encode()))
    size, half = len(ring), degree // 2
    return {
        client: tuple(sorted(ring[(i + step) % size] for step in range(-half, half + 1) if step))
        for i, client in enumerate(ring)
    }
