"""One run as its report needs it, read from the store; what is not there is None or empty."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedloom.specs.canonical import restore
from fedloom.specs.fleet import Fleet
from fedloom.tasks.errors import RunError
from fedloom.tasks.losses import without_update
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.reporting.records import State, judge, read_lines, read_object, result_place
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place, Run
from fedloom.tasks.store import RunStore

Json = dict[str, Any]


@dataclass(frozen=True)
class Participation:
    """Who took part.

    Attributes:
        asked: Rounds in which each client was in the cohort; a client of the roster that never was has 0.
        gave: Rounds in which it gave an update.
        columns: Roster columns, each with the value of every client.
    """

    asked: dict[str, int]
    gave: dict[str, int]
    columns: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class RunRecord:
    """Everything that is known of a run.

    Attributes:
        run_id: The run.
        store: URL of its store.
        state: running, ended, failed or unknown.
        reason: Why it failed, or why its state is unknown.
        plan: The compiled plan.
        about: The words of its job.
        rounds: The lines of ``round.jsonl``; where updates are compared, with the remarks on them.
        summary: What it ended with.
        evidence: The evidence of its last judged round.
        analysis: What its last evaluation found beyond metrics.
        seconds: For each round, seconds of each step, shards added.
        participation: Who took part; None where that is not to be told or cannot be read.
        silence: Why it is not told, or "".
        objects: Number of objects of the run, and their bytes.
        started: When the first object of the run that is still there was written.
        written: When the last was.
    """

    run_id: str
    store: str
    state: State
    reason: str
    plan: Json
    about: Json
    rounds: tuple[Json, ...]
    summary: Json
    evidence: Json
    analysis: Json
    seconds: dict[int, dict[str, float]]
    participation: Participation | None
    silence: str
    objects: tuple[int, int]
    started: datetime
    written: datetime

    @property
    def recipe(self) -> Json:
        """What its steps read."""
        found: Json = self.plan.get("recipe", {})
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of its last round."""
        found: dict[str, float] = self.rounds[-1]["metrics"] if self.rounds else {}
        return found

    @property
    def plan_digest(self) -> str:
        """As its last judged round says; the part in its id where there is none."""
        prefix = f"{self.plan.get('job_id', '')}-"
        return str(self.evidence.get("plan_digest") or self.run_id.removeprefix(prefix)[:12])


def read_run(store: RunStore, run_id: str, now: datetime | None = None) -> RunRecord:
    """Read a run.

    Raises:
        StoreError: when the store is out of reach.
    """
    prefix = f"runs/{run_id}/"
    entries = store.objects(f"runs/{run_id}")
    names = {entry.key.removeprefix(prefix) for entry in entries}
    top = {name: read_object(store, prefix + name) if name in names else {} for name in _TOP}
    results = _results(store, prefix, names)
    lines = _with_remarks(store, read_lines(store, run_id), results)
    moments = [entry.modified for entry in entries] or [datetime.now(UTC)]
    state, reason = judge(run_id, top["plan.json"], entries, top["failure.json"], now or datetime.now(UTC))
    participation, silence = _participation(store, run_id, top["plan.json"], lines)
    return RunRecord(
        run_id=run_id,
        store=store.url,
        state=state,
        reason=reason,
        plan=top["plan.json"],
        about=top["about.json"],
        rounds=tuple(lines),
        summary=top["summary.json"],
        evidence=_last_evidence(store, results),
        analysis=_analysis(store, results),
        seconds=_seconds(results),
        participation=participation,
        silence=silence,
        objects=(len(entries), sum(entry.bytes for entry in entries)),
        started=min(moments),
        written=max(moments),
    )


_TOP = ("plan.json", "about.json", "summary.json", "failure.json")
Results = dict[tuple[int, str, int | None], Json]


def _results(store: RunStore, prefix: str, names: set[str]) -> Results:
    """The results of all finished steps, by round, step and shard."""
    places = {prefix + name: place for name in names if (place := result_place(name)) is not None}
    found = {}
    for key, data in store.read_many(places).items():
        try:
            result = json.loads(data)
        except ValueError:
            continue  # the steps themselves say so when they are run again
        if isinstance(result, dict) and result.get("step") == places[key][1] and isinstance(result.get("files"), dict):
            found[places[key]] = result
    return found


def _with_remarks(store: RunStore, lines: list[Json], results: Results) -> list[Json]:
    """The lines, with the updates that did not count as they came in the place of their number."""
    files = {
        round: result["files"]["quality"]["key"]
        for (round, step, _), result in results.items()
        if step == "aggregate" and "quality" in result["files"]
    }
    data, quality = store.read_many(files.values()), dict[int, Json]()
    for round, key in files.items():
        with suppress(ValueError, KeyError):  # the steps themselves say so when they are run again
            found = json.loads(data[key])
            quality[round] = {kind: found[kind] for kind in ("excluded", "flagged", "clipped")}
    return [line | quality.get(line["round"], {}) for line in lines]


def _last(results: Results, step: str) -> Json:
    rounds = [place for place in results if place[1] == step and place[2] is None]
    return results[max(rounds)] if rounds else {}


def _last_evidence(store: RunStore, results: Results) -> Json:
    file = _last(results, "gate").get("files", {}).get("evidence")
    return read_object(store, file["key"]) if file else {}


def _analysis(store: RunStore, results: Results) -> Json:
    for step in ("gate", "evaluate"):
        if file := _last(results, step).get("files", {}).get("analysis"):
            return read_object(store, file["key"])
    return {}


def _seconds(results: Results) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for (round, step, _), result in sorted(results.items(), key=lambda item: str(item[0])):
        steps = found.setdefault(round, {})
        steps[step] = steps.get(step, 0.0) + float(result.get("seconds") or 0.0)
    return dict(sorted(found.items()))


def _participation(store: RunStore, run_id: str, plan: Json, lines: list[Json]) -> tuple[Participation | None, str]:
    privacy = plan.get("recipe", {}).get("privacy") or {}
    if privacy.get("unit") == "client" and privacy.get("sampling") != "all":
        return None, (
            "The privacy of this run counts on nobody knowing which clients were drawn: who took part, and who was "
            "lost, is not told."
        )
    try:
        run = stored_run(store, run_id, plan)
        asked, gave = cohorts(run, lines)
    except (RunError, ValueError, KeyError, TypeError) as error:
        return None, f"Who took part cannot be read: {error}"
    columns = {name: dict(zip(run.fleet.clients, values, strict=True)) for name, values in run.fleet.attributes.items()}
    return Participation(asked, gave, columns), ""


def cohorts(run: Run, lines: list[Json]) -> tuple[dict[str, int], dict[str, int]]:
    """In how many rounds each client of the roster was asked, and gave an update."""
    asked: Counter[str] = Counter(dict.fromkeys(run.fleet.clients, 0))
    lost: Counter[str] = Counter()
    for line in lines:
        asked.update(client for shard in cohort_shards(Place(run, line["round"])) for client in shard)
        excluded = {entry["client"] for entry in entries_of(line.get("excluded"))}
        lost.update(without_update(entries_of(line.get("dropouts"))) | excluded)
    return dict(asked), {client: max(0, count - lost[client]) for client, count in asked.items()}


def entries_of(value: Any) -> list[Json]:
    """Entries about single clients, however a line gives them."""
    if not isinstance(value, list):
        return []
    return [entry if isinstance(entry, dict) else {"client": str(entry)} for entry in value]


def stored_run(store: RunStore, run_id: str, plan: Json) -> Run:
    """A run as steps know it, from what its store says; its clients' data are elsewhere.

    Raises:
        StoreError: when its roster is not in the store.
        ValueError: when its plan is of another version.
    """
    recipe = restore(Recipe, plan.get("recipe", {}))
    roster = store.read_json(f"fleets/{recipe.fleet_digest}.json")
    fleet = Fleet(
        fleet_id="",
        version="",
        root=Path(),
        clients=tuple(roster["clients"]),
        data=tuple(roster["data"]),
        attributes={name: tuple(values) for name, values in roster["attributes"].items()},
    )
    rest = run_id.removeprefix(f"{recipe.job_id}-")
    return Run(recipe, rest[:12], fleet, Path(), store, rest[13:])
