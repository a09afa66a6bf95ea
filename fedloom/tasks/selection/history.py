"""What clients did in earlier rounds of a job, kept in the run store and shared by its runs.

Every round leaves one object, ``history/JOB_ID/RUN_ID/round-00001.json``, which is written by its own run alone, so
that runs at the same time do not meet; a run that has ended leaves all of them in one, ``rounds.json``. A decision
reads a tally of them that is frozen in its own round: other runs as they stood when this one began to select, and this
run's earlier rounds.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from fedloom.specs.canonical import canonical_json
from fedloom.tasks.errors import StoreError
from fedloom.tasks.losses import without_update
from fedloom.tasks.selection.tally import Tally, empty_tally, fold
from fedloom.tasks.step import Place, Run

_FIELDS = frozenset({"run_id", "round", "at", "asked", "gave", "dropouts", "excluded", "flagged", "figures"})
TALLY = "tally.json"


def started(run: Run) -> str:
    """When the run began, by its one reading of the clock (ISO 8601, UTC)."""
    key = run.key("started.json")
    if not run.store.exists(key):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        run.store.create(key, canonical_json({"at": now}))  # of two processes that try, one sets it for both
    at: str = run.store.read_json(key)["at"]
    return at


def record_round(place: Place, last: bool) -> None:
    """Put a finished round into the job's history, and after the last all of them as one object for later runs.

    Again, it writes the same. A baseline leaves none: it would change who the job's own runs ask, and has figures of
    single clients that these keep from the server.
    """
    run = place.run
    if not run.recipe.selection.keep_history or run.recipe.kind != "train" or run.recipe.baseline:
        return
    run.store.write_json(_key(run, run.run_id, place.round), round_record(place))
    if last:
        records = [_own(Place(run, number)) for number in range(1, place.round + 1)]
        run.store.write_json(_whole(run, run.run_id), records)


def round_record(place: Place) -> dict[str, Any]:
    """Who was asked in a round, who gave an update, who dropped out or was found suspicious, and why.

    Figures of single clients are in it only where neither masks nor a promise of privacy keep them from the server.
    """
    recipe, took = place.run.recipe, place.result("aggregate")["outputs"]
    decision = json.loads(place.file("select", "decision"))
    asked = sorted(decision["cohort"])
    lost = without_update(took["dropouts"])
    gave = [] if took["aborted"] is not None else [client for client in asked if client not in lost]
    from fedloom.tasks.gather import client_figures  # it needs torch, and most processes that select do not

    secret = recipe.masking is not None or recipe.privacy is not None
    compared = "quality" in place.result("aggregate")["files"]
    # The step's outputs name the first of many remarks only.
    remarks = json.loads(place.file("aggregate", "quality")) if compared else {"excluded": [], "flagged": []}
    return {
        "run_id": place.run.run_id,
        "round": place.round,
        "at": started(place.run) if decision["history"] is None else decision["history"]["at"],
        "asked": asked,
        "gave": gave,
        "dropouts": took["dropouts"],
        "excluded": remarks["excluded"],
        "flagged": remarks["flagged"],
        "figures": None if secret else client_figures(place),
    }


def frozen_tally(place: Place) -> Tally | None:
    """The tally that this round's decision was or will be made with; None where none is frozen yet."""
    key = place.key(TALLY)
    return Tally.load(place.run.store.read(key), place.run.fleet.clients) if place.run.store.exists(key) else None


def freeze(place: Place, tally: Tally) -> Tally:
    """Fix the tally of a round for good; where another process was first, its tally counts."""
    place.run.store.create(place.key(TALLY), tally.dump(place.run.fleet.clients))
    found = frozen_tally(place)
    assert found is not None, "it was just written"
    return found


def current_tally(place: Place) -> Tally:
    """What has happened up to this round, from the last frozen tally on."""
    run, period = place.run, _period(place.run)
    before = frozen_tally(Place(run, place.round - 1)) if place.round > 1 else None
    if before is not None:
        return fold(before, [_own(Place(run, place.round - 1))], run.fleet.clients)
    tally = empty_tally(len(run.fleet.clients), started(run), period)
    own = [_own(Place(run, number)) for number in range(1, place.round)]
    return fold(tally, [*_other_runs(run), *own], run.fleet.clients)


def _own(place: Place) -> dict[str, Any]:
    key = _key(place.run, place.run.run_id, place.round)
    return _read(place.run, key) if place.run.store.exists(key) else round_record(place)


def _other_runs(run: Run) -> list[dict[str, Any]]:
    """The rounds of the job's other runs so far, in the order in which the runs began."""
    found = []
    for run_id in run.store.folders(f"history/{run.recipe.job_id}"):
        if run_id == run.run_id:
            continue
        if run.store.exists(_whole(run, run_id)):
            found += [_checked(run, _whole(run, run_id), record) for record in run.store.read_json(_whole(run, run_id))]
            continue
        number = 1
        while run.store.exists(_key(run, run_id, number)):
            found.append(_read(run, _key(run, run_id, number)))
            number += 1
    return sorted(found, key=lambda record: (record["at"], record["run_id"], record["round"]))


def _read(run: Run, key: str) -> dict[str, Any]:
    return _checked(run, key, run.store.read_json(key))


def _checked(run: Run, key: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict) or not record.keys() >= _FIELDS:
        raise StoreError(f"{key} in the run store {run.store.url} is damaged; restore it, or delete it to go without")
    return record


def _key(run: Run, run_id: str, number: int) -> str:
    return f"history/{run.recipe.job_id}/{run_id}/round-{number:05d}.json"


def _whole(run: Run, run_id: str) -> str:
    return f"history/{run.recipe.job_id}/{run_id}/rounds.json"


def _period(run: Run) -> str | None:
    fairness = run.recipe.selection.fairness
    return fairness.period if fairness is not None else None
