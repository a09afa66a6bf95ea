"""A session with two servers in the run store: what clients posted, what both servers hold, and the two halves.

Each server works in steps of its own, with its own folder, and sees of the other what the store shows: whose messages
it could open, and its half of the sum. Two operators may each run theirs with `fedloom step`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np
from filelock import FileLock

from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.masked.session import frozen, frozen_messages, masking, server_registry, session_terms
from fedloom.tasks.secure_aggregation.keys import public_of
from fedloom.tasks.secure_aggregation.masks import Ring
from fedloom.tasks.secure_aggregation.quantise import EXTRA, ring_type
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.secure_aggregation.state import FolderState
from fedloom.tasks.secure_aggregation.two_server import FIRST, SECOND, HalfServer
from fedloom.tasks.server_keys import private_key, published_keys, server_home
from fedloom.tasks.step import Place, StepResult
from fedloom.tasks.store import RunStore

STAGES = ("train", "split_update")
"""Steps that clients take part in, in their order."""
CHECKS = {FIRST: "check_first", SECOND: "check_second"}
HALVES = {FIRST: "first_half", SECOND: "second_half"}
_SEALED = "sealed/"


def sealed_role(client: str) -> str:
    """Under which role a client's message to the second server stands among the files of a shard."""
    return _SEALED + client


class Posted(Mapping[str, bytes]):
    """Messages in the store, read when they are asked for: those to the second server are as large as the model."""

    def __init__(self, store: RunStore, keys: Mapping[str, str]) -> None:
        self._store, self._keys = store, keys

    def __getitem__(self, client: str) -> bytes:
        return self._store.read(self._keys[client])

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def check(place: Place, which: str) -> StepResult:
    """Open every message that was posted to a server. A client whose message does not hold is a dropout."""
    try:
        server = half_server(place, which)
        held = server.check(posted(place, which))
    except AbortError as error:
        return StepResult({"clients": 0, "dropouts": [], "aborted": str(error)})
    dropouts = [{"client": client, "reason": reason} for client, reason in sorted(server.refused.items())]
    stored = place.run.store.write_json(place.key(f"session/{CHECKS[which]}.held.json"), held)
    return StepResult({"clients": len(held), "dropouts": dropouts, "aborted": None}, {"held": stored})


def half(place: Place, which: str) -> StepResult:
    """Add a server's halves over the clients that both servers hold."""
    try:
        server = half_server(place, which)
        clients = in_both(place)
        # Of two processes that add at once, over different clients, one must see what the other gave.
        with FileLock(server_home(which) / "sum.lock"):
            total = server.add(posted(place, which), clients)
    except AbortError as error:
        return StepResult({"clients": 0, "aborted": str(error)})
    stored = place.run.store.write(place.key(f"session/{HALVES[which]}.ring"), total.tobytes())
    return StepResult({"clients": len(clients), "aborted": None}, {"half": stored})


def half_server(place: Place, which: str) -> HalfServer:
    """A server in the round's session.

    Raises:
        AbortError: when there is no session.
        ConfigurationError: when its key is not the one that it told at the run's beginning.
    """
    terms, private, rules = session_terms(place), private_key(which), masking(place)
    if public_of(private).hex() != published_keys(place)[which]:
        raise ConfigurationError(
            f"the key of the {which} server in {server_home(which)} is not the one that this run began with"
        )
    if terms.survivors < rules.survivors or terms.length != rules.parameters + EXTRA:
        raise AbortError("the terms of the session are not those of the plan")
    state = FolderState(server_home(which) / "sessions" / terms.session.hex())
    return HalfServer(which, terms, server_registry(place), private, state)


def posted(place: Place, which: str) -> Mapping[str, bytes]:
    """The messages to a server, by client, as they were when the first server looked.

    They are signed, so that what was damaged in the store is noticed as what was forged, at the client that it is of.
    """
    if which == FIRST:
        return frozen_messages(place, "split_update")
    keys = {}
    for shard in frozen(place, "split_update"):
        for role, file in shard["files"].items():
            if role.startswith(_SEALED):
                keys[role.removeprefix(_SEALED)] = file["key"]
    return Posted(place.run.store, keys)


def in_both(place: Place) -> list[str]:
    """The clients whose messages both servers could open, sorted.

    Raises:
        AbortError: when a server had no session.
    """
    held: list[set[str]] = []
    for step in CHECKS.values():
        if aborted := place.result(step)["outputs"]["aborted"]:
            raise AbortError(aborted)
        held.append(set(json.loads(place.file(step, "held"))))
    return sorted(set.intersection(*held))


def opened(place: Place) -> Ring:
    """The sum of the two halves.

    Raises:
        AbortError: when a server gave none.
    """
    rules = masking(place)
    kind = ring_type(rules.ring_bits)
    total: Ring = np.zeros(rules.parameters + EXTRA, kind)
    for step in HALVES.values():
        if aborted := place.result(step)["outputs"]["aborted"]:
            raise AbortError(aborted)
        total += np.frombuffer(place.file(step, "half"), kind)
    return total


def refused(place: Place) -> list[dict[str, str]]:
    """The clients whose messages a server could not open, with reasons; each once."""
    found: dict[str, dict[str, str]] = {}
    for step in CHECKS.values():
        for drop in place.result(step)["outputs"]["dropouts"]:
            found.setdefault(drop["client"], {**drop, "stage": step})
    return list(found.values())
