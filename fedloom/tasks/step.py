"""What a step is: one plain function over the run store, done once.

A step reads what earlier steps wrote, returns small outputs and names the objects that it wrote. `run_step`
keeps the rules that make engines equal: a step that has finished is not run again, and its result is the last
thing written, so a run killed anywhere is continued by running it again.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fedloom.specs.canonical import plain
from fedloom.specs.fleet import Fleet
from fedloom.tasks.errors import ConfigurationError, RunError, ShardLostError, StoreError, one_line
from fedloom.tasks.recipe import Recipe
from fedloom.tasks.store import RunStore, Stored
from fedloom.tasks.window_cache import WindowCache

Outputs = dict[str, Any]

STEPS: Mapping[str, str] = {
    "first_key": "fedloom.tasks.halves.first_key",
    "second_key": "fedloom.tasks.halves.second_key",
    "validate": "fedloom.tasks.validate",
    "initialise": "fedloom.tasks.initialise",
    "reserve_privacy": "fedloom.tasks.privacy.reserve_privacy",
    "select": "fedloom.tasks.select",
    "distribute": "fedloom.tasks.distribute",
    "train": "fedloom.tasks.train",
    "measure": "fedloom.tasks.measure",
    "collect": "fedloom.tasks.collect",
    "advertise_keys": "fedloom.tasks.masked.advertise_keys",
    "share_keys": "fedloom.tasks.masked.share_keys",
    "mask_update": "fedloom.tasks.masked.mask_update",
    "confirm_survivors": "fedloom.tasks.masked.confirm_survivors",
    "reveal_shares": "fedloom.tasks.masked.reveal_shares",
    "unmask": "fedloom.tasks.masked.unmask",
    "split_update": "fedloom.tasks.halves.split_update",
    "check_first": "fedloom.tasks.halves.check_first",
    "check_second": "fedloom.tasks.halves.check_second",
    "first_half": "fedloom.tasks.halves.first_half",
    "second_half": "fedloom.tasks.halves.second_half",
    "aggregate": "fedloom.tasks.aggregate",
    "evaluate": "fedloom.tasks.evaluate",
    "gate": "fedloom.tasks.gate",
    "commit_privacy": "fedloom.tasks.privacy.commit_privacy",
    "report": "fedloom.tasks.report",
    "export": "fedloom.tasks.export",
}
"""Every step and the module whose function ``step`` carries it out (imported when it runs)."""


_FIELDS = frozenset({"outputs", "files", "plan_digest"})


@dataclass(frozen=True)
class StepResult:
    """What a step leaves: small JSON for engines, and objects in the store by their role."""

    outputs: Outputs
    files: Mapping[str, Stored] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of a plan.

    Attributes:
        recipe: What the steps read.
        plan_digest: SHA-256 of the plan that the recipe belongs to.
        fleet: The roster of clients.
        folder: The job's folder; data locations of the job are relative to it.
        store: Where steps read and write.
        name: Sets runs of one plan apart, such as those of different nights; "" for the plain run.
        windows: What this process has read of the clients' data.
    """

    recipe: Recipe
    plan_digest: str
    fleet: Fleet
    folder: Path
    store: RunStore
    name: str = ""
    windows: WindowCache = field(default_factory=WindowCache, repr=False, compare=False)

    @property
    def run_id(self) -> str:
        """The same for the same plan and name, so that running it again continues it."""
        return f"{self.recipe.job_id}-{self.plan_digest[:12]}" + (f"-{self.name}" if self.name else "")

    def key(self, *parts: str) -> str:
        """A key in the run's part of the store."""
        return "/".join(("runs", self.run_id, *parts))


@dataclass(frozen=True)
class Place:
    """Where in a run a step stands: the round (from 1; 0 outside rounds) and the shard (None outside fan-outs)."""

    run: Run
    round: int
    shard: int | None = None

    def key(self, name: str) -> str:
        """Key of an object of this round."""
        return self.run.key(f"round-{self.round:05d}", name) if self.round else self.run.key(name)

    def result_key(self, step: str, shard: int | None = None) -> str:
        """Key of the result of a step of this round."""
        return self.key(step + ("" if shard is None else f"/shard-{shard:05d}") + ".json")

    def find(self, step: str, shard: int | None = None, round: int | None = None) -> Mapping[str, Any] | None:
        """The result of another step of this round (or of `round`), or None when it has not finished."""
        place = self if round is None else Place(self.run, round)
        key = place.result_key(step, shard)
        if not self.run.store.exists(key):
            return None
        result = self.run.store.read_json(key)
        if not isinstance(result, dict) or not result.keys() >= _FIELDS:
            raise StoreError(f"{key} in the run store {self.run.store.url} is damaged; delete it and run again")
        return result

    def result(self, step: str, shard: int | None = None, round: int | None = None) -> Mapping[str, Any]:
        """The result of another step that this one needs.

        Raises:
            ConfigurationError: when that step has not run.
        """
        found = self.find(step, shard, round)
        if found is None:
            number = self.round if round is None else round
            at = (f" of round {number}" if number else "") + ("" if shard is None else f", shard {shard},")
            raise ConfigurationError(f"step {step!r}{at} must run first (run {self.run.run_id})")
        return found

    def file(self, step: str, role: str, shard: int | None = None) -> bytes:
        """The bytes of an object that another step of this round wrote.

        Raises:
            ConfigurationError: when that step has not run.
            StoreError: when the object is missing or damaged.
        """
        stored = self.result(step, shard)["files"][role]
        return self.run.store.read(stored["key"], expect=stored["sha256"])


def run_step(run: Run, name: str, round: int = 0, shard: int | None = None) -> Outputs:
    """Carry out one step, or return what it returned when it has finished before.

    Args:
        run: The run.
        name: One of `STEPS`.
        round: From 1; 0 for steps outside the rounds.
        shard: For steps that fan out over shards.

    Returns:
        The step's outputs: small JSON. Tensors and long tables stand in the store.

    Raises:
        ShardLostError: when the shard was recorded as lost.
        RunError: when the run cannot go on.
    """
    place = Place(run, round, shard)
    key = place.result_key(name, shard)
    finished = place.find(name, shard)
    if finished is not None and "lost" in finished:
        raise ShardLostError(finished["lost"])
    if finished is not None and all(run.store.exists(file["key"]) for file in finished["files"].values()):
        return dict(finished["outputs"])
    started = time.monotonic()
    try:
        result = _carry_out(name, place)
    except Exception as error:
        _note_failure(place, name, error)
        raise
    late = place.find(name, shard)
    if late is not None and "lost" in late:  # given up meanwhile: what was decided without it stays decided
        raise ShardLostError(late["lost"])
    run.store.write_json(
        key,
        {
            "step": name,
            "round": round,
            "shard": shard,
            "plan_digest": run.plan_digest,
            "outputs": result.outputs,
            "files": plain(dict(result.files)),
            "seconds": time.monotonic() - started,
        },
    )
    return result.outputs


def _carry_out(name: str, place: Place) -> StepResult:
    try:
        return load_step(name)(place)
    except SystemExit as error:
        raise RunError(f"step {name}: a custom class ended the process (exit code {error.code})") from error


def _note_failure(place: Place, name: str, error: Exception) -> None:
    """Leave word of why a step failed; it counts for as long as the step has no result."""
    # What is no RunError comes from elsewhere and may say anything: its kind is enough.
    reason = one_line(error) if isinstance(error, RunError) else type(error).__name__
    note = {"step": name, "round": place.round, "shard": place.shard, "reason": reason}
    with suppress(StoreError):  # the failure itself is what people must see
        place.run.store.write_json(place.run.key("failure.json"), note)


def load_step(name: str) -> Callable[[Place], StepResult]:
    """The function of a step.

    Raises:
        ConfigurationError: when there is no such step.
    """
    if name not in STEPS:
        close = get_close_matches(name, STEPS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"steps are {', '.join(STEPS)}"
        raise ConfigurationError(f"there is no step {name!r}; {hint}")
    function: Callable[[Place], StepResult] = importlib.import_module(STEPS[name]).step
    return function
