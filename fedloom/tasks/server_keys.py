"""The key pairs of two servers that share a sum, and the copy of the public keys that a fleet's clients go by.

Each private key is made in its server's own folder and stays there. Clients trust the keys in their fleet's folder:
put there by `fedloom fleet keys`, or else taken from the first run; a server that comes with another key is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fedloom.specs.canonical import canonical_json
from fedloom.tasks.client_home import fleet_folder, second_server_folder, server_folder
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.privacy.noise import own_secret
from fedloom.tasks.secure_aggregation.identity import write_private
from fedloom.tasks.secure_aggregation.keys import public_of
from fedloom.tasks.secure_aggregation.two_server import FIRST as FIRST
from fedloom.tasks.secure_aggregation.two_server import SECOND as SECOND
from fedloom.tasks.step import Place

SERVERS = (FIRST, SECOND)
_HINT = "say which keys to trust with fedloom fleet keys JOB --first-server KEY --second-server KEY"


def server_home(which: str) -> Path:
    """The folder that is a server's own."""
    return server_folder() if which == FIRST else second_server_folder()


def private_key(which: str) -> bytes:
    """A server's X25519 private key, 32 bytes; made when it is first asked for.

    Raises:
        ConfigurationError: when it cannot be kept, or is damaged.
    """
    return own_secret(server_home(which), "exchange")


def public_key(which: str) -> str:
    """Its public half, 64 hex digits."""
    return public_of(private_key(which)).hex()


def published_keys(place: Place) -> dict[str, str]:
    """The public keys that the servers told at the beginning of a run."""
    return {which: str(Place(place.run, 0).result(f"{which}_key")["outputs"]["public"]) for which in SERVERS}


def trusted_keys(fleet_id: str) -> dict[str, bytes]:
    """The public keys that the clients of a fleet seal to.

    Raises:
        ConfigurationError: when they have none, or the file is damaged.
    """
    path = _path(fleet_id)
    try:
        found = {which: bytes.fromhex(json.loads(path.read_bytes())[which]) for which in SERVERS}
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is missing: the clients trust no server yet; {_HINT}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is damaged: {error!r}; {_HINT}") from error
    if any(len(key) != 32 for key in found.values()):
        raise ConfigurationError(f"{path} is damaged: a key has 32 bytes; {_HINT}")
    return found


def trust(fleet_id: str, keys: Mapping[str, str], replace: bool = False) -> None:
    """Keep the servers' public keys for the clients of a fleet.

    Args:
        fleet_id: The fleet.
        keys: 64 hex digits for each server.
        replace: Whether they count instead of others that clients trust already.

    Raises:
        ConfigurationError: when they are no keys of two servers, or clients trust others.
    """
    _check(keys)
    path = _path(fleet_id)
    if path.exists() and not replace:
        for which, known in trusted_keys(fleet_id).items():
            if known.hex() != keys[which]:
                raise ConfigurationError(
                    f"the {which} server has key {keys[which][:16]}…, and the clients of fleet {fleet_id} trust "
                    f"{known.hex()[:16]}…; if it was replaced, {_HINT}"
                )
        return
    try:
        write_private(path, canonical_json(dict(keys)))
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error


def _check(keys: Mapping[str, str]) -> None:
    for which in SERVERS:
        try:
            sound = len(bytes.fromhex(keys[which])) == 32
        except ValueError:
            sound = False
        if not sound:
            raise ConfigurationError(f"{keys[which]!r} is no key of the {which} server: 64 hex digits")
    if keys[FIRST] == keys[SECOND]:
        raise ConfigurationError("the two servers have the same key: they must be two, with a folder each")


def _path(fleet_id: str) -> Path:
    return fleet_folder(fleet_id) / "servers.json"
