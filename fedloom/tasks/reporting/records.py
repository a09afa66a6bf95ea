"""The runs of a store: which there are, and how each stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Literal

from fedloom.tasks.errors import ConfigurationError, StoreError
from fedloom.tasks.rounds import read_rounds
from fedloom.tasks.store import Entry, RunStore

State = Literal["running", "ended", "failed", "unknown"]
QUIET = timedelta(minutes=15)
"""A run that has written nothing for so long, and for the time limit of its longest step, is not called running."""
_SHOWN = 8
_RESULT = re.compile(r"(?:round-(\d{5})/)?([a-z_]+)(?:/shard-(\d{5}))?\.json")


@dataclass(frozen=True)
class Overview:
    """One run in a list.

    Attributes:
        run_id: The run.
        job: Its job.
        state: running, ended, failed (a step failed and has not been repeated), or unknown (it was stopped, or waits).
        reason: Why it failed; what is known otherwise, or "".
        rounds: Rounds done.
        wanted: Rounds of the plan; None where the plan cannot be read.
        decision: What the gate decided; None before the end.
        promoted: Whether the gate made its model the champion.
        baseline: Whether it left out the privacy that its job promises.
        metric: Name of the job's first metric that has a value, or None.
        value: That value.
        written: When the run last wrote.
    """

    run_id: str
    job: str
    state: State
    reason: str
    rounds: int
    wanted: int | None
    decision: str | None
    promoted: bool
    baseline: bool
    metric: str | None
    value: float | None
    written: datetime


def run_ids(store: RunStore) -> list[str]:
    """The runs of a store, sorted."""
    return store.folders("runs")


def find_run(store: RunStore, name: str) -> str:
    """The run that a name means: its id, or the beginning of one.

    Raises:
        ConfigurationError: when there is no such run, or more than one.
    """
    known = run_ids(store)
    if name in known:
        return name
    found = [run for run in known if run.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(f"{name!r} means {len(found)} runs: {_some(found)}; write more of the id")
    if not known:
        raise ConfigurationError(f"there is no run {name!r}: the run store {store.url} has none")
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    raise ConfigurationError(
        f"there is no run {name!r} in the run store {store.url}; there are {_some(close or known)}"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def overviews(store: RunStore, now: datetime | None = None) -> list[Overview]:
    """All runs, the last written first."""
    at = now or datetime.now(UTC)
    with ThreadPoolExecutor(1 if store.local_folder is not None else 16) as pool:
        found = pool.map(lambda run: overview(store, run, at), run_ids(store))
        return sorted((run for run in found if run is not None), key=lambda run: run.written, reverse=True)


def overview(store: RunStore, run_id: str, now: datetime | None = None) -> Overview | None:
    """How one run stands; None when it has no plan (it has not begun, or is being removed).

    It reads little: the run's own objects, and of those below only the last round's.
    """
    files = store.objects(f"runs/{run_id}", deep=False)
    names = {entry.key.rpartition("/")[2] for entry in files}
    if "plan.json" not in names:
        return None
    plan = read_object(store, f"runs/{run_id}/plan.json")
    if "report.json" not in names:
        rounds = [name for name in store.folders(f"runs/{run_id}") if name.startswith("round-")]
        files += store.objects(f"runs/{run_id}/{rounds[-1]}") if rounds else []
    written = max(entry.modified for entry in files)
    failure = read_object(store, f"runs/{run_id}/failure.json") if "failure.json" in names else {}
    state, reason = judge(run_id, plan, files, failure, now or datetime.now(UTC))
    lines = read_lines(store, run_id) if "round.jsonl" in names else []
    summary = read_object(store, f"runs/{run_id}/summary.json") if "summary.json" in names else {}
    recipe, gate = plan.get("recipe", {}), summary.get("gate", {})
    metric, value = first_metric(recipe, lines[-1]["metrics"] if lines else {})
    return Overview(
        run_id=run_id,
        job=plan.get("job_id", ""),
        state=state,
        reason=reason,
        rounds=len(lines),
        wanted=recipe.get("rounds"),
        decision=gate.get("decision") if state == "ended" else None,
        promoted=bool(gate.get("promoted")),
        baseline=bool(recipe.get("baseline")),
        metric=metric,
        value=value,
        written=written,
    )


def judge(
    run_id: str, plan: dict[str, Any], files: Iterable[Entry], failure: dict[str, Any], now: datetime
) -> tuple[State, str]:
    """The state of a run and the reason for it.

    Args:
        run_id: The run.
        plan: Its plan; empty when that cannot be read.
        files: Its objects, at least its own and those of its last round.
        failure: What its last failed step left, or {}.
        now: The time.
    """
    keys = {entry.key: entry for entry in files}
    if f"runs/{run_id}/report.json" in keys:
        return "ended", ""
    if "step" in failure and f"runs/{run_id}/{result_name(failure)}" not in keys:
        return "failed", f"{_where(failure)}: {failure.get('reason', '')}"
    if f"runs/{run_id}/summary.json" in keys:  # the last step is at work, maybe on a page that says so
        return "ended", ""
    limits = [step.get("timeout_s") or 0 for step in plan.get("loop", {}).get("steps", [])]
    quiet = max(QUIET, timedelta(seconds=max(limits, default=0)))
    written = max((entry.modified for entry in keys.values()), default=now)
    if now - written <= quiet:
        return "running", ""
    return "unknown", "it has not ended and writes no more: stopped, or waiting; run it again to continue it"


def result_name(note: dict[str, Any]) -> str:
    """Name of the result that a step of a round and shard leaves."""
    at = f"round-{note['round']:05d}/" if note.get("round") else ""
    return f"{at}{note['step']}" + ("" if note.get("shard") is None else f"/shard-{note['shard']:05d}") + ".json"


def result_place(name: str) -> tuple[int, str, int | None] | None:
    """Round, step and shard of a name below a run, if it is that of a result."""
    found = _RESULT.fullmatch(name)
    if found is None:
        return None
    return int(found[1] or 0), found[2], None if found[3] is None else int(found[3])


def _where(failure: dict[str, Any]) -> str:
    shard = "" if failure.get("shard") is None else f", shard {failure['shard']}"
    return f"step {failure.get('step')}" + (f" of round {failure['round']}" if failure.get("round") else "") + shard


def first_metric(recipe: dict[str, Any], metrics: dict[str, float]) -> tuple[str | None, float | None]:
    """The first of the job's metrics that has a value, and it."""
    wanted = [name for name in recipe.get("evaluation", {}).get("metrics", []) if name in metrics]
    name = wanted[0] if wanted else next(iter(metrics), None)
    return name, None if name is None else metrics[name]


def read_object(store: RunStore, key: str) -> dict[str, Any]:
    """A JSON object of the store, or {} when it is not there or no JSON object: reports say what is missing."""
    data = store.read_many([key]).get(key)
    try:
        found = json.loads(data) if data is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(store: RunStore, run_id: str) -> list[dict[str, Any]]:
    """The lines of a run's rounds; none when they cannot be read."""
    try:
        lines = read_rounds(store.read(f"runs/{run_id}/round.jsonl"))
    except (StoreError, ValueError):
        return []
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("metrics"), dict)]
