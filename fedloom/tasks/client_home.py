"""The clients' own folders: identity keys, the secrets of sessions, updates that nobody else may see.

A real client has its folder on its own machine. Simulated clients have theirs below one folder of this machine, or of
a volume that only the pods of client steps mount; never in the run store.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from fedloom.specs.canonical import sha256
from fedloom.specs.fleet import Fleet
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.secure_aggregation.identity import (
    Identity,
    IdentityError,
    IdentityKey,
    Registry,
    decode_registry,
    encode_registry,
    write_private,
)

CLIENTS_VARIABLE = "FEDLOOM_CLIENTS"
SERVER_VARIABLE = "FEDLOOM_SERVER"
SECOND_SERVER_VARIABLE = "FEDLOOM_SECOND_SERVER"
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def clients_root() -> Path:
    """Folder of the simulated clients: FEDLOOM_CLIENTS, or the platform's convention for data of a user.

    Raises:
        ConfigurationError: when there is no home folder and the variable is not set.
    """
    return _root(CLIENTS_VARIABLE, "clients")


def server_folder() -> Path:
    """The server's own folder (keys and secrets of noise): FEDLOOM_SERVER, or the platform's convention.

    Raises:
        ConfigurationError: when there is no home folder and the variable is not set.
    """
    return _root(SERVER_VARIABLE, "server")


def second_server_folder() -> Path:
    """The own folder of the second of two servers: FEDLOOM_SECOND_SERVER, or the platform's convention.

    Raises:
        ConfigurationError: when there is no home folder and the variable is not set.
    """
    return _root(SECOND_SERVER_VARIABLE, "second-server")


def _root(variable: str, name: str) -> Path:
    if own := os.environ.get(variable):
        return Path(own).expanduser().absolute()
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        return (shared if shared.is_absolute() else Path.home() / ".local" / "share") / "fedloom" / name
    except RuntimeError as error:
        raise ConfigurationError(f"no home folder for keys; set {variable}") from error


def fleet_folder(fleet_id: str) -> Path:
    """Folder of a fleet's clients."""
    return clients_root() / _safe(fleet_id)


def client_folder(fleet_id: str, client: str) -> Path:
    """A client's own folder."""
    return fleet_folder(fleet_id) / "clients" / _safe(client)


def registry_path(fleet_id: str) -> Path:
    """Where the clients of a fleet keep their copy of its registry of identity keys."""
    return fleet_folder(fleet_id) / "registry.json"


def load_registry(fleet_id: str) -> Registry:
    """The registry of a fleet.

    Raises:
        ConfigurationError: when it is missing or damaged.
    """
    path = registry_path(fleet_id)
    try:
        return decode_registry(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} is missing: write the fleet's identity keys with fedloom fleet keys"
        ) from None
    except IdentityError as error:
        raise ConfigurationError(f"{path} is damaged: {error}") from error


def load_identity(fleet_id: str, client: str) -> Identity:
    """A client's identity key.

    Raises:
        IdentityError: when it is missing or damaged.
    """
    return Identity.read(client_folder(fleet_id, client) / "identity.pem")


def make_keys(fleet: Fleet, rotate: frozenset[str] = frozenset(), valid_days: int | None = None) -> dict[str, str]:
    """Give every client of a fleet an identity key that has none, and those to rotate a new one.

    Two processes that do so at once take turns. What a stopped one left is completed by the next.

    Args:
        fleet: The roster.
        rotate: Clients whose key is replaced; the old one is never accepted again.
        valid_days: Days after which the new keys expire; None for never.

    Returns:
        The public key of each client that got one.

    Raises:
        ConfigurationError: when a client to rotate is not in the fleet, or the folder cannot be written.
    """
    strangers = rotate - set(fleet.clients)
    if strangers:
        raise ConfigurationError(f"client {min(strangers)!r} is not in fleet {fleet.fleet_id}")
    path, made = registry_path(fleet.fleet_id), {}
    now = datetime.now(UTC).replace(microsecond=0)
    expires = None if valid_days is None else (now + timedelta(days=valid_days)).isoformat()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_suffix(".lock")):
            registry = load_registry(fleet.fleet_id) if path.exists() else Registry(fleet.fleet_id, {}, {})
            for client in fleet.clients:
                if client in registry.keys and client not in rotate:
                    continue
                identity = Identity.generate()
                identity.write(client_folder(fleet.fleet_id, client) / "identity.pem")
                registry = registry.rotated(client, IdentityKey(identity.public, now.isoformat(), expires))
                made[client] = identity.public
            if made:
                write_private(path, encode_registry(registry))
    except OSError as error:
        raise ConfigurationError(
            f"cannot keep the clients' keys in {path.parent}: {error.strerror or error}; set {CLIENTS_VARIABLE}"
        ) from error
    return made


def _safe(name: str) -> str:
    """A file name for any id: the id itself where it is one."""
    return name if _PLAIN.fullmatch(name) else f"id-{sha256(name.encode())[:32]}"
