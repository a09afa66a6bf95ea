"""Who clients are: Ed25519 identity keys, and the fleet's registry of the public ones.

A client's private key never leaves its own folder. The registry says which public key a client signs with, since
when, until when, and which keys it had before; a session trusts no key that does not stand there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedloom.specs.canonical import canonical_json


class IdentityError(Exception):
    """A key that is not the one in the registry, or no longer counts; the message says whose and why."""


@dataclass(frozen=True)
class IdentityKey:
    """A client's public key.

    Attributes:
        public: Ed25519 public key, 64 hex digits.
        created: RFC 3339 time.
        expires: RFC 3339 time from which it no longer counts; None for never.
    """

    public: str
    created: str
    expires: str | None = None


@dataclass(frozen=True)
class Registry:
    """The identity keys of a fleet.

    Attributes:
        fleet: The fleet.
        keys: The key of each client.
        retired: Keys that clients had before: never accepted again.
    """

    fleet: str
    keys: Mapping[str, IdentityKey]
    retired: Mapping[str, tuple[IdentityKey, ...]]

    def key_of(self, client: str, now: datetime | None = None) -> str:
        """The public key that a client signs with.

        Raises:
            IdentityError: when the client has none, or it has expired.
        """
        if client not in self.keys:
            raise IdentityError(f"client {client!r} has no identity key in the registry of fleet {self.fleet}")
        key = self.keys[client]
        if key.expires is not None and (now or datetime.now(UTC)) >= datetime.fromisoformat(key.expires):
            raise IdentityError(f"the identity key of {client!r} expired at {key.expires}; rotate it")
        return key.public

    def check(self, client: str, message: bytes, signature: bytes) -> None:
        """Verify that a client signed a message.

        Raises:
            IdentityError: when it did not.
        """
        public = self.key_of(client)
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, message)
        except InvalidSignature:
            for old in self.retired.get(client, ()):
                if _signed(old.public, message, signature):
                    raise IdentityError(f"{client!r} signed with a key that was rotated") from None
            raise IdentityError(f"the signature of {client!r} does not fit its identity key") from None

    def rotated(self, client: str, key: IdentityKey) -> Registry:
        """The registry after a client got a (new) key."""
        keys, retired = dict(self.keys), dict(self.retired)
        if client in keys:
            retired[client] = (*retired.get(client, ()), keys[client])
        keys[client] = key
        return replace(self, keys=keys, retired=retired)


class Identity:
    """A client's private key. It signs, and shows nothing of itself."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return self._private.sign(message)

    @classmethod
    def generate(cls) -> Identity:
        """A new key, from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Identity:
        """Read a key that `write` wrote.

        Raises:
            IdentityError: when the file is missing or holds no Ed25519 key; the message has nothing of its content.
        """
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            raise IdentityError(f"there is no identity key at {path}") from None
        except (ValueError, TypeError):
            raise IdentityError(f"{path} holds no private key") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise IdentityError(f"{path} holds no Ed25519 key")
        return cls(private)

    def write(self, path: Path) -> None:
        """Write the key as PEM, readable by its owner alone, in one atomic step."""
        data = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, data)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, atomically; its folder is made likewise."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def decode_registry(data: bytes) -> Registry:
    """Read a registry that `encode_registry` wrote.

    Raises:
        IdentityError: when it is none.
    """
    try:
        found = json.loads(data)
        return Registry(
            found["fleet"],
            {client: IdentityKey(**key) for client, key in found["keys"].items()},
            {client: tuple(IdentityKey(**key) for key in keys) for client, keys in found["retired"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IdentityError(f"no registry of identity keys: {error}") from None


def encode_registry(registry: Registry) -> bytes:
    """A registry as canonical JSON; it holds public keys alone."""
    keys = {client: vars(key) for client, key in registry.keys.items()}
    retired = {client: [vars(key) for key in old] for client, old in registry.retired.items()}
    return canonical_json({"fleet": registry.fleet, "keys": keys, "retired": retired})


def _signed(public: str, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, message)
    except InvalidSignature:
        return False
    return True
