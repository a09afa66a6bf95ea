"""Retention: runs whose time is over leave their record in ``archive/`` and are removed from the store.

It works in an order that may be cut anywhere and done again, by two at once too: the records of all runs that go; then
models and rosters that only they refer to; then each run, its plan first. So a run without a plan has its record, and
what is left of it goes without another look. Nothing outside the keys that fedloom writes is touched.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fedloom.specs.registry import State as Section
from fedloom.tasks.reporting.card import model_card
from fedloom.tasks.reporting.data import read_run
from fedloom.tasks.reporting.metrics_text import metrics_csv
from fedloom.tasks.reporting.records import judge
from fedloom.tasks.retention import SHORTEST, Term, audit_of, term
from fedloom.tasks.store import Entry, RunStore

_DIGEST = re.compile(r"[0-9a-f]{64}")
_OWN = re.compile(
    r"[a-z_]+\.json|round\.jsonl|summary\.md|report\.html|round-\d{5}/(?:[a-z_]+/)?[^/]+\.(?:json|safetensors|ring|sealed)"
    r"|scaffold/(?:server|[0-9a-f]{32})/[0-9a-f]{64}\.safetensors"
)
"""Names below a run that fedloom writes."""
_FOLDERS = ("runs", "models", "fleets", "archive", "ledger", "history", "exports")
"""Folders whose objects keep no run: a history goes with its run, an export is a copy."""
_LARGEST = 1_000_000
"""Objects in other folders that may refer to runs and models are small; larger ones are not read."""
_RECORD = ("plan.json", "about.json", "summary.json", "failure.json")


@dataclass(frozen=True)
class Fate:
    """What becomes of one run.

    Attributes:
        run_id: The run.
        job: Its job.
        written: When it last wrote.
        term: How long it is kept; None for what is left of a run that is being removed.
        kept: Why it is kept although, or because; None: it goes.
        objects: Its objects that go.
        history: What later runs read of it, which goes with it.
        others: Its objects that are not fedloom's, which stay.
    """

    run_id: str
    job: str
    written: datetime
    term: Term | None
    kept: str | None
    objects: tuple[Entry, ...]
    others: tuple[str, ...]
    history: tuple[Entry, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the objects that go."""
        return sum(entry.bytes for entry in (*self.objects, *self.history))


@dataclass(frozen=True)
class Clearance:
    """What would be removed from a store.

    Attributes:
        runs: Every run and its fate.
        shared: Models and rosters that only runs that go refer to.
    """

    runs: tuple[Fate, ...]
    shared: tuple[Entry, ...]

    @property
    def going(self) -> tuple[Fate, ...]:
        """The runs that go."""
        return tuple(fate for fate in self.runs if fate.kept is None)

    @property
    def bytes(self) -> int:
        """Size of everything that goes."""
        return sum(fate.bytes for fate in self.going) + sum(entry.bytes for entry in self.shared)


def survey(store: RunStore, sections: Mapping[str, Section] | None, now: datetime) -> Clearance:
    """Decide for every run of a store whether its time is over.

    Args:
        store: The store.
        sections: By job id, the section of the registry that lists it; None where there is no registry.
        now: The time.

    Raises:
        StoreError: when the store is out of reach.
    """
    runs: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.objects("runs"):
        runs[entry.key.split("/")[1]].append(entry)
    archived = set(store.folders("archive"))
    fates = {run: _fate(store, run, entries, sections, run in archived, now) for run, entries in runs.items()}
    elsewhere = _elsewhere(store)
    pinned = _referred_to(store, fates, elsewhere)
    for run, reason in pinned.items():
        if run in fates and fates[run].kept is None:
            fates[run] = _keep(fates[run], reason)
    for entry in store.objects("history"):  # history/JOB/RUN/…
        run = entry.key.split("/")[2]
        if run in fates and fates[run].kept is None:
            fates[run] = replace(fates[run], history=(*fates[run].history, entry))
    return Clearance(tuple(fates[run] for run in sorted(fates)), _shared(store, fates.values(), runs, elsewhere))


def carry_out(store: RunStore, found: Clearance, say: Callable[[str], None]) -> None:
    """Remove what a survey found. May be stopped at any moment; the next survey finds the rest.

    Raises:
        StoreError: when the store cannot be written.
    """
    for fate in found.going:
        if fate.term is not None and (key := _write_record(store, fate.run_id)) is not None:
            say(f"{fate.run_id}: its record is {key}")
    _delete(store, [entry.key for entry in found.shared])
    if found.shared:
        say(f"{len(found.shared)} models and rosters are removed")
    for fate in found.going:
        store.delete(f"runs/{fate.run_id}/plan.json")
        _delete(store, [entry.key for entry in fate.history])
        _delete(store, [entry.key for entry in fate.objects])
        say(f"{fate.run_id} is removed ({len(fate.objects)} objects)")


def _delete(store: RunStore, keys: list[str]) -> None:
    with ThreadPoolExecutor(1 if store.local_folder is not None else 16) as pool:
        for _ in pool.map(store.delete, keys):
            pass


def _fate(
    store: RunStore,
    run: str,
    entries: list[Entry],
    sections: Mapping[str, Section] | None,
    archived: bool,
    now: datetime,
) -> Fate:
    prefix = f"runs/{run}/"
    own = tuple(entry for entry in entries if _OWN.fullmatch(entry.key.removeprefix(prefix)))
    others = tuple(entry.key for entry in entries if entry not in own)
    written = max(entry.modified for entry in entries)
    found = store.read_many([prefix + name for name in _RECORD])
    plan, about, _, failure = (_json(found.get(prefix + name)) for name in _RECORD)
    if not plan:
        left = archived and now - written > SHORTEST
        kept = None if left else "it has no plan that could be read; nothing is known of it"
        return Fate(run, "", written, None, kept, own, others)
    state, _ = judge(run, plan, entries, failure, now)
    job = str(plan.get("job_id", ""))
    section = None if sections is None else sections.get(job)
    baseline = bool(plan.get("recipe", {}).get("baseline"))
    own_term = term(state, baseline, section, sections is not None, audit_of(about), written)
    over = own_term.until is not None and own_term.until < now
    return Fate(run, job, written, own_term, None if over else own_term.reason, own, others)


def _keep(fate: Fate, reason: str) -> Fate:
    return replace(fate, kept=reason)


def _referred_to(store: RunStore, fates: Mapping[str, Fate], elsewhere: Mapping[str, bytes]) -> dict[str, str]:
    """Runs that must stay because something names them, each with what does.

    A champion's pointer names its run, and that run's evidence the champion that it was compared with: what one would
    go back to. The plan of a run that stays may name others, and so may theirs.
    """
    pinned: dict[str, str] = {}
    for key, data in elsewhere.items():
        for run in _runs_in(data, fates):
            pinned.setdefault(run, f"{key} refers to it")
    for champion in list(pinned):
        for run in _runs_in(_last_evidence(store, champion, fates[champion].objects), fates):
            if run != champion:
                pinned.setdefault(run, f"the evidence of {champion} refers to it")
    fresh = {run for run, fate in fates.items() if fate.kept is not None} | pinned.keys()
    while fresh:  # what a run that stays refers to stays, and what that refers to
        plans = store.read_many(f"runs/{run}/plan.json" for run in sorted(fresh))
        named = {run: f"{key} refers to it" for key, data in plans.items() for run in _runs_in(data, fates)}
        fresh = {run for run in named if run not in pinned and fates[run].kept is None}
        pinned |= {run: named[run] for run in fresh}
    return pinned


def _elsewhere(store: RunStore) -> dict[str, bytes]:
    """Small objects outside the runs: pointers of champions, and whatever else may name runs and models."""
    found = [entry for folder in store.folders("") if folder not in _FOLDERS for entry in store.objects(folder)]
    return store.read_many(entry.key for entry in found if entry.bytes <= _LARGEST)


def _runs_in(data: bytes, runs: Iterable[str]) -> list[str]:
    words = set(re.findall(r"[A-Za-z0-9._-]+", data.decode(errors="replace")))
    return [run for run in runs if run in words]


def _last_evidence(store: RunStore, run: str, entries: Iterable[Entry]) -> bytes:
    keys = sorted(entry.key for entry in entries if entry.key.endswith("/evidence.json"))
    return store.read_many(keys[-1:]).get(keys[-1], b"") if keys else b""


def _shared(
    store: RunStore, fates: Iterable[Fate], runs: Mapping[str, list[Entry]], elsewhere: Mapping[str, bytes]
) -> tuple[Entry, ...]:
    """Models and rosters that runs that go refer to, and nothing else does."""
    going, staying = set[str](), set[str]()
    for fate in fates:
        (going if fate.kept is None else staying).update(_digests(store, fate, runs[fate.run_id]))
    for data in elsewhere.values():
        staying.update(_DIGEST.findall(data.decode(errors="replace")))
    wanted = going - staying
    found = [*store.objects("models"), *store.objects("fleets")] if wanted else []
    return tuple(entry for entry in found if _DIGEST.fullmatch(_stem(entry.key)) and _stem(entry.key) in wanted)


def _digests(store: RunStore, fate: Fate, entries: list[Entry]) -> set[str]:
    """Every digest that a run's own objects name; of one that has not ended, those of its rounds too."""
    prefix = f"runs/{fate.run_id}/"
    names = {entry.key.removeprefix(prefix) for entry in entries}
    keys = [prefix + name for name in ("plan.json", "initialise.json", "round.jsonl", "report.json") if name in names]
    if "report.json" not in names:
        keys += [prefix + name for name in names if re.fullmatch(r"round-\d{5}/[a-z_]+\.json", name)]
    data = store.read_many(keys).values()
    return {digest for text in data for digest in _DIGEST.findall(text.decode(errors="replace"))}


def _write_record(store: RunStore, run: str) -> str | None:
    """Put what must stay of a run into one ZIP, named by its content; None when another is removing the run.

    It has the plan, the end, the last evidence, the metrics of all rounds and the model card, and names no client
    but those that the job itself blocks.
    """
    prefix = f"runs/{run}/"
    record = read_run(store, run)
    files = {key.removeprefix(prefix): data for key, data in store.read_many(prefix + name for name in _RECORD).items()}
    files["evidence.json"] = _last_evidence(store, run, store.objects(f"runs/{run}"))
    files["metrics.csv"] = metrics_csv(record).encode()
    files["model_card.md"] = model_card(record).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data)  # without times: the same run gives the same record
    if not store.exists(prefix + "plan.json"):
        return None
    return store.write_content(f"archive/{run}", ".zip", made.getvalue()).key


def _stem(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data) if data is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
