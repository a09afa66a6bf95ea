"""One session of secure aggregation in the run store: who said what, frozen at the end of each stage.

The first instance of a stage that looks at the one before freezes what that left: which shards, with which bytes.
Whatever a late process writes afterwards is not part of the session, and all instances see the same.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from filelock import FileLock

from fedloom.specs.canonical import canonical_json, sha256
from fedloom.tasks.client_home import client_folder, load_identity, load_registry
from fedloom.tasks.errors import RunError, StoreError, one_line
from fedloom.tasks.losses import LOST_SHARD
from fedloom.tasks.recipe import MaskingRecipe
from fedloom.tasks.secure_aggregation.client import CLOSED, Client, RefusedError
from fedloom.tasks.secure_aggregation.identity import IdentityError, Registry, decode_registry
from fedloom.tasks.secure_aggregation.messages import MessageError, Terms, decode, make_terms
from fedloom.tasks.secure_aggregation.parameters import Assumptions, Degrees, ParameterError, choose
from fedloom.tasks.secure_aggregation.quantise import EXTRA
from fedloom.tasks.secure_aggregation.server import AbortError, Server
from fedloom.tasks.secure_aggregation.state import FolderState
from fedloom.tasks.select import cohort_shards, shard_clients
from fedloom.tasks.step import Place, StepResult

STAGES = ("train", "advertise_keys", "share_keys", "mask_update", "confirm_survivors", "reveal_shares")
"""Steps that clients take part in, in their order."""
UPDATE = "update"
"""Name of the quantised update in a client's own folder."""
_SESSIONS, _GIVEN = "sessions", "given"
Messages = dict[str, bytes]
T = TypeVar("T")


def masking(place: Place) -> MaskingRecipe:
    """What the recipe says of secure aggregation; only steps of plans that have it ask."""
    found = place.run.recipe.masking
    assert found is not None, "the plan has no secure aggregation"
    return found


def own_folder(place: Place, client: str) -> FolderState:
    """What a client keeps of this run and round besides its sessions; the same run in another store is another."""
    run = place.run
    name = f"{run.run_id}-{sha256(run.store.url.encode())[:8]}"
    return FolderState(client_folder(run.fleet.fleet_id, client) / "rounds" / name / f"{place.round:05d}")


def play(place: Place, stage: str, answer: Callable[[Server, Client], bytes]) -> StepResult:
    """Let the clients of a shard that are still in the session answer at one stage.

    A client that refuses, or whose folder is gone, is a dropout with the reason; a session that cannot go on says
    why in ``aborted``, and every later stage says the same.
    """
    try:
        server = server_before(place, stage)
    except AbortError as error:
        return StepResult({"clients": 0, "dropouts": [], "aborted": str(error)})
    names = [name for name in shard_clients(place) if name in expected(server, stage)]

    def ask(name: str) -> bytes:
        client = open_client(place, server.terms, name)
        with joined(place, server.terms, name):
            return answer(server, client)

    answers, dropouts = collect(names, ask)
    return StepResult(
        {"clients": len(answers), "dropouts": dropouts, "aborted": None}, {"messages": store_messages(place, answers)}
    )


@contextmanager
def joined(place: Place, terms: Terms, name: str) -> Iterator[None]:
    """Let one process at a time play a client in a round, and note which session it is in, to close it some day."""
    own = own_folder(place, name)
    own.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(own.folder / "lock"):
        known, session = (own.load(_SESSIONS) or b"").decode().split(), terms.session.hex()
        if session not in known:
            own.save(_SESSIONS, " ".join([*known, session]).encode())
        yield


def take_update(place: Place, terms: Terms, name: str) -> bytes | None:
    """The quantised update of a client; None when it is gone.

    It goes into one session alone: two sums over different clients would tell one of them from the rest.

    Raises:
        RefusedError: when it went into another session.
    """
    own = own_folder(place, name)
    given = own.load(_GIVEN)
    if given is not None and given != terms.session:
        raise RefusedError(f"{name}: its update of this round went into another session")
    own.save(_GIVEN, terms.session)
    return own.load(UPDATE)


def close_earlier(place: Place, name: str) -> None:
    """Close a client's sessions of earlier rounds, also those that came to no end; of each a tombstone stays."""
    rounds = own_folder(place, name).folder.parent
    folders = sorted(rounds.iterdir(), reverse=True) if rounds.exists() else []
    for folder in folders:
        own = FolderState(folder)
        if not folder.name.isdigit() or int(folder.name) >= place.round:
            continue
        if own.load(CLOSED) is not None:
            return  # and with it those before
        own.save(_GIVEN, CLOSED.encode())  # whatever is trained for that round again is given to nobody
        own.delete(UPDATE)
        for session in (own.load(_SESSIONS) or b"").decode().split():
            close(_session_state(place, session, name))
        own.save(CLOSED, b"")


def close(state: FolderState) -> None:
    """Forget all of a session but that it is closed."""
    state.save(CLOSED, b"")
    for path in state.folder.iterdir():
        if path.name != CLOSED:
            path.unlink()


def collect(names: list[str], answer: Callable[[str], T]) -> tuple[dict[str, T], list[dict[str, str]]]:
    """Ask clients one after the other.

    Returns:
        The answers by client, and the clients that gave none, with reasons.

    Raises:
        RunError: when the run cannot go on.
    """
    answers: dict[str, T] = {}
    dropouts = []
    for name in names:
        try:
            answers[name] = answer(name)
        except RunError:
            raise
        except (RefusedError, MessageError, IdentityError) as reason:
            dropouts.append({"client": name, "reason": str(reason)})
        except Exception as error:  # whatever happens at one client is no concern of the others
            dropouts.append({"client": name, "reason": one_line(error)})
    return answers, dropouts


def store_messages(place: Place, messages: Messages) -> Any:
    """Write the messages of a shard under their own digest, so that nothing can replace them."""
    data = canonical_json({client: b64encode(message).decode() for client, message in messages.items()})
    return place.run.store.write_content(place.key("session"), ".json", data)


def open_client(place: Place, terms: Terms, name: str) -> Client:
    """A client of this machine, with what it keeps in its own folder.

    Raises:
        IdentityError: when it has no identity key.
    """
    fleet = place.run.fleet.fleet_id
    rules, state = masking(place), session_folder(place, terms, name)
    floor = Assumptions(rules.corrupt, 0.0)
    return Client(name, load_identity(fleet, name), load_registry(fleet), state, floor, rules.survivors)


def session_folder(place: Place, terms: Terms, name: str) -> FolderState:
    """What a client keeps of a session."""
    return _session_state(place, terms.session.hex(), name)


def _session_state(place: Place, session: str, name: str) -> FolderState:
    return FolderState(client_folder(place.run.fleet.fleet_id, name) / "sessions" / session)


def expected(server: Server, stage: str) -> set[str]:
    """The clients that a stage is about."""
    return {
        "advertise_keys": set(server.terms.clients),
        "share_keys": set(server.adverts),
        "mask_update": set(server.shares),
        "confirm_survivors": set(server.alive),
        "reveal_shares": set(server.confirmations),
    }[stage]


def server_before(place: Place, stage: str) -> Server:
    """The server as it stands when a stage begins; ``unmask`` comes after all of them.

    Raises:
        AbortError: when the session cannot go on.
        StoreError: when what was frozen is missing or damaged.
    """
    server = Server(session_terms(place), server_registry(place))
    takes = {
        "advertise_keys": server.take_adverts,
        "share_keys": server.take_shares,
        "mask_update": lambda messages: server.take_masked(list(messages)),
        "confirm_survivors": server.take_confirmations,
        "reveal_shares": server.take_reveals,
    }
    for earlier, take in takes.items():
        if earlier == stage:
            break
        take(frozen_messages(place, earlier))
    return server


def session_terms(place: Place) -> Terms:
    """The terms of the round's session, made once from the clients that are ready.

    Raises:
        AbortError: when too few are, or their keys do not allow a session.
    """
    store, key = place.run.store, place.key("session/terms.json")
    if not store.exists(key):
        store.create(key, _make_terms(place).encode())
    try:
        return decode(Terms, store.read(key), None)
    except ValueError as error:
        raise StoreError(f"{key} in the run store {store.url} is damaged: {error}; delete it and run again") from error


def degrees_for(clients: int, rules: MaskingRecipe) -> Degrees:
    """The numbers of masks; a cohort smaller than planned keeps its secrets, if not through as many dropouts.

    Raises:
        ParameterError: when it cannot keep them.
    """
    try:
        return choose(clients, Assumptions(rules.corrupt, rules.dropout), rules.threshold)
    except ParameterError:
        return choose(clients, Assumptions(rules.corrupt, 0.0), rules.threshold)


def server_registry(place: Place) -> Registry:
    """The public keys that the server goes by; clients go by their own copy.

    Raises:
        StoreError: when it is damaged.
    """
    data = Place(place.run, 0).file("validate", "registry")
    try:
        return decode_registry(data)
    except IdentityError as error:
        raise StoreError(f"the run's registry of identity keys is damaged: {error}") from error


def _make_terms(place: Place) -> Terms:
    rules, registry = masking(place), server_registry(place)
    ready = sorted(frozen_messages(place, "train"))
    if len(ready) < rules.survivors:
        raise AbortError(f"only {len(ready)} clients are ready, {rules.survivors} are needed")
    # Fresh for every attempt: a run begun anew in another store is not the session that clients have closed.
    attempt = os.urandom(8).hex()
    context = canonical_json([place.run.plan_digest, place.run.name, place.round, attempt]).decode()
    try:
        # With two servers nobody shares secrets, and the numbers of it say nothing.
        shared = rules.protocol == "pairwise"
        degrees = degrees_for(len(ready), rules) if shared else Degrees(len(ready) - 1, 2, 2)
        return make_terms(
            registry,
            context,
            tuple(ready),
            degrees.neighbours,
            degrees.threshold,
            rules.survivors,
            rules.ring_bits,
            rules.parameters + EXTRA,
        )
    except (ParameterError, IdentityError) as error:
        raise AbortError(str(error)) from error


def frozen(place: Place, stage: str) -> list[dict[str, Any]]:
    """The files that each shard left at a stage, as they were when the next one began."""
    store, key = place.run.store, place.key(f"session/{stage}.frozen.json")
    if not store.exists(key):
        results = [place.result(stage, shard) for shard in range(len(cohort_shards(place)))]
        store.create(key, canonical_json([{"files": found["files"]} for found in results]))
    found: list[dict[str, Any]] = store.read_json(key)
    return found


def frozen_messages(place: Place, stage: str) -> Messages:
    """All messages of a stage, by client."""
    messages: Messages = {}
    for shard in frozen(place, stage):
        if "messages" in shard["files"]:
            file = shard["files"]["messages"]
            data = json.loads(place.run.store.read(file["key"], expect=file["sha256"]))
            messages |= {client: b64decode(message) for client, message in data.items()}
    return messages


def dropouts(place: Place, stages: Sequence[str] = STAGES) -> list[dict[str, str]]:
    """Who was lost at which stage, and why, over all stages of the round."""
    shards, found = cohort_shards(place), []
    gone: set[str] = set()
    for stage in stages:
        for shard, clients in enumerate(shards):
            result = place.result(stage, shard)
            if "lost" in result:
                reasons = [{"client": c, "reason": f"{LOST_SHARD}: {result['lost']}"} for c in clients]
            else:
                reasons = result["outputs"]["dropouts"]
            found += [{**reason, "stage": stage} for reason in reasons if reason["client"] not in gone]
            gone |= {reason["client"] for reason in reasons}
    return found
