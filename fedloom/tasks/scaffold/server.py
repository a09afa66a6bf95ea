"""The server's control variate over the rounds.

It is the mean of the clients' variates, weighted like their updates, over all clients that may be drawn; that of a
client from which nothing has counted yet is zero. With equal weights this is the paper's c. What is carried from round
to round is the sum, so that the number of eligible clients may change.
"""

from __future__ import annotations

import json
from typing import Any

from fedloom.tasks.model_store import bytes_to_tensors, tensors_to_bytes
from fedloom.tasks.models import State
from fedloom.tasks.scaffold.shard import ALGORITHM, write_control
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place
from fedloom.tasks.store import Stored

_Known = dict[str, dict[str, Any]]


def server_control(place: Place) -> dict[str, Stored]:
    """The server's variate for a round ("control") and which own variate counts for each client of its cohort.

    Nothing for another algorithm, and before any update has counted: then all variates are zero.
    """
    known, total = _state(place)
    if not known:
        return {}
    mean_weight = sum(entry["weight"] for entry in known.values()) / len(known)
    population = max(int(place.result("select")["outputs"]["eligible"]), len(known))
    mean = {name: (tensor / (population * mean_weight)).float() for name, tensor in total.items()}
    cohort = [client for clients in cohort_shards(place) for client in clients]
    counted = {client: known[client]["sha256"] for client in cohort if client in known}
    return {
        "control": write_control(place.run, None, mean),
        "controls": place.run.store.write_json(place.key("controls.json"), counted),
    }


def controls_after(place: Place, counts: bool) -> dict[str, Stored]:
    """The sum of all clients' variates after a round, and where each stands.

    Args:
        place: The round; the results of its shards are there.
        counts: Whether its updates count; if not, everything stays as it was.
    """
    if place.run.recipe.training.algorithm != ALGORITHM:
        return {}
    known, total = _state(place)
    for shard in range(len(cohort_shards(place))) if counts else ():
        if "controls" not in place.result("train", shard)["files"]:
            continue
        known |= json.loads(place.file("train", "controls", shard))
        change = bytes_to_tensors(place.file("train", "control", shard), f"the controls of shard {shard}")
        for name, tensor in change.items():
            total[name] = total[name] + tensor if name in total else tensor
    store = place.run.store
    return {
        "controls": store.write_json(place.key("aggregate.controls.json"), known),
        "control_sum": store.write(place.key("aggregate.controls.safetensors"), tensors_to_bytes(total)),
    }


def _state(place: Place) -> tuple[_Known, State]:
    """What `controls_after` wrote in the round before."""
    if place.round == 1 or place.run.recipe.training.algorithm != ALGORITHM:
        return {}, {}
    before = Place(place.run, place.round - 1)
    known: _Known = json.loads(before.file("aggregate", "controls"))
    return known, bytes_to_tensors(before.file("aggregate", "control_sum"), "the sum of the controls")
