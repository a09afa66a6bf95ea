"""Step "split_update": the ready clients of a shard split their updates and post a sealed half to each server."""

from __future__ import annotations

from fedloom.tasks.client_home import load_identity, load_registry
from fedloom.tasks.halves.session import sealed_role
from fedloom.tasks.masked.session import (
    UPDATE,
    collect,
    joined,
    masking,
    own_folder,
    session_folder,
    session_terms,
    store_messages,
    take_update,
)
from fedloom.tasks.secure_aggregation.client import RefusedError
from fedloom.tasks.secure_aggregation.messages import Terms
from fedloom.tasks.secure_aggregation.quantise import EXTRA
from fedloom.tasks.secure_aggregation.server import AbortError
from fedloom.tasks.secure_aggregation.two_server import FIRST, SECOND, split_once
from fedloom.tasks.select import shard_clients
from fedloom.tasks.server_keys import trusted_keys
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Post what the shard's clients seal: the first server's messages together, the second's one by one (large)."""
    try:
        terms = session_terms(place)
    except AbortError as error:
        return StepResult({"clients": 0, "dropouts": [], "aborted": str(error)})
    names = [name for name in shard_clients(place) if name in terms.clients]
    files, first = {}, {}

    def post(name: str) -> None:
        messages = split(place, terms, name)
        stored = place.run.store.write_content(place.key("session"), ".sealed", messages[SECOND])
        files[sealed_role(name)], first[name] = stored, messages[FIRST]

    _, dropouts = collect(names, post)
    outputs = {"clients": len(first), "dropouts": dropouts, "aborted": None}
    return StepResult(outputs, {**files, "messages": store_messages(place, first)})


def split(place: Place, terms: Terms, name: str) -> dict[str, bytes]:
    """A client's messages to the two servers; asked again, the same bytes.

    Once they are kept, the update is forgotten.

    Raises:
        RefusedError: when the session is not what the client agreed to, or its update is gone.
    """
    fleet, rules = place.run.fleet.fleet_id, masking(place)
    state = session_folder(place, terms, name)
    identity, registry = load_identity(fleet, name), load_registry(fleet)
    if terms.survivors < rules.survivors:
        raise RefusedError(f"{name}: a sum of {terms.survivors} clients, {rules.survivors} were agreed on")
    if (terms.ring_bits, terms.length) != (rules.ring_bits, rules.parameters + EXTRA):
        raise RefusedError(f"{name}: the session is not about vectors of {rules.parameters} coordinates")
    with joined(place, terms, name):
        update = take_update(place, terms, name)
        messages = split_once(terms, name, identity, registry, trusted_keys(fleet), state, update)
        own_folder(place, name).delete(UPDATE)
    return messages
