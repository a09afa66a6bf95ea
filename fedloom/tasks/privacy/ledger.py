"""The ledger: what differential privacy was spent on one population, shared by all jobs on it.

An entry is one object of the run store, named by its number, and made only where there is none: of two runs that
append at once one succeeds, and the other reads again and decides anew. So runs together cannot overspend, on a folder
as on an object store, and no lock can be left behind. Each entry names the SHA-256 of the one before and is signed
with the server's Ed25519 key. What changes or removes an entry between others is found by `check`; for the newest ones,
keep the head elsewhere, which `fedloom privacy ledger show` prints, and give it to `verify`.

A run reserves what its rounds will cost before anybody trains, and commits what they did cost at its end. A crash
leaves the reservation charged until the same run is continued. Over runs, epsilons and deltas add up (basic
composition), which is an upper bound. Ledgers of records and of clients are never added.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from filelock import FileLock

from fedloom.specs.canonical import canonical_json, sha256
from fedloom.tasks.client_home import server_folder
from fedloom.tasks.errors import ConfigurationError, RunError
from fedloom.tasks.secure_aggregation.identity import Identity, IdentityError
from fedloom.tasks.store import RunStore

WARN_FROM = 0.9
"""Share of a budget from which a run is warned."""
_START = "0" * 64
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_CLOSE = 1 + 1e-9
_FIELDS = frozenset(
    {"sequence", "previous", "kind", "at", "run", "job", "epsilon", "delta", "budget", "key", "signature"}
)


class LedgerError(RunError):
    """The ledger is damaged: nothing is added to it before a person has looked."""


class BudgetError(RunError):
    """What a run would cost is more than the population's budget has left."""


@dataclass(frozen=True)
class Cost:
    """An (epsilon, delta)."""

    epsilon: float
    delta: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.epsilon + other.epsilon, self.delta + other.delta)

    def exceeds(self, budget: Cost) -> bool:
        """Whether either number is above the budget's, but for rounding."""
        return self.epsilon > budget.epsilon * _CLOSE or self.delta > budget.delta * _CLOSE


@dataclass(frozen=True)
class Account:
    """What a ledger says.

    Attributes:
        spent: By runs that ended.
        reserved: By runs that have not, or were stopped.
        budget: As of the newest reservation; None for no limit.
        runs: Run ids, each with its state ("reserved" or "committed") and cost.
        entries: Number of entries.
        head: SHA-256 of the newest entry, 64 hex digits.
    """

    spent: Cost
    reserved: Cost
    budget: Cost | None
    runs: tuple[tuple[str, str, Cost], ...]
    entries: int
    head: str

    @property
    def warning(self) -> str | None:
        """A sentence, when nine tenths of the budget are gone."""
        used = self.spent + self.reserved
        if self.budget is None:
            return None
        for name, spent, whole in (
            ("epsilon", used.epsilon, self.budget.epsilon),
            ("delta", used.delta, self.budget.delta),
        ):
            if spent >= WARN_FROM * whole:
                return f"{spent / whole:.0%} of the privacy budget is spent: {name} {spent:.4g} of {whole:g}"
        return None


def signer() -> Identity:
    """The server's key for ledgers, in its own folder; made when it is first asked for.

    Raises:
        ConfigurationError: when it cannot be kept or read.
    """
    folder = server_folder()
    path = folder / "ledger.pem"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(folder / "ledger.lock"):
                if not path.exists():
                    Identity.generate().write(path)
        return Identity.read(path)
    except (OSError, IdentityError) as error:
        raise ConfigurationError(f"cannot keep the ledger's key in {folder}: {error}") from error


def reserve(
    store: RunStore, ledger: str, run: str, job: str, cost: Cost, budget: Cost | None, key: Identity
) -> Account:
    """Charge a run's cost before it trains; a run that has reserved before is not charged twice.

    Raises:
        BudgetError: when the budget does not have it, or the run has ended before: what it would do now is not what
            was charged.
        LedgerError: when the ledger is damaged or signed with another key.
    """
    while True:
        entries = _sound(store, ledger, key)
        before = account(entries)
        state = next((state for known, state, _ in before.runs if known == run), None)
        if state == "committed":
            raise BudgetError(
                f"run {run} has ended and was charged to {ledger}, but its results are gone from {store.url}: "
                "to do it again is to spend again; start another with --name"
            )
        if state == "reserved":
            return before
        used = before.spent + before.reserved
        if budget is not None and (used + cost).exceeds(budget):
            raise BudgetError(
                f"the privacy budget of {ledger} does not allow this run: it costs epsilon {cost.epsilon:.4g} and "
                f"delta {cost.delta:.2g}, {used.epsilon:.4g} and {used.delta:.2g} of {budget.epsilon:g} and "
                f"{budget.delta:.2g} are spent or reserved"
            )
        if _append(store, ledger, entries, "reserve", run, job, cost, budget, key):
            return account(_sound(store, ledger, key))


def commit(store: RunStore, ledger: str, run: str, cost: Cost, key: Identity) -> Account:
    """Replace a run's reservation by what its rounds did cost; once.

    Raises:
        LedgerError: when the run has no reservation of as much, or the ledger is damaged.
    """
    while True:
        entries = _sound(store, ledger, key)
        before = account(entries)
        state = {known: (kind, held) for known, kind, held in before.runs}.get(run)
        if state is None or (state[0] == "reserved" and cost.exceeds(state[1])):
            raise LedgerError(f"run {run} has no reservation of epsilon {cost.epsilon:.4g} in ledger {ledger}")
        if state[0] == "committed":
            return before
        job = next(entry["job"] for entry in entries if entry["run"] == run)
        if _append(store, ledger, entries, "commit", run, job, cost, before.budget, key):
            return account(_sound(store, ledger, key))


def account(entries: list[dict[str, Any]]) -> Account:
    """What sound entries add up to."""
    runs: dict[str, tuple[str, Cost]] = {}
    budget: Cost | None = None
    for entry in entries:
        state = "reserved" if entry["kind"] == "reserve" else "committed"
        runs[entry["run"]] = (state, Cost(entry["epsilon"], entry["delta"]))
        budget = Cost(**entry["budget"]) if entry["budget"] is not None else None
    sums = {state: Cost(0.0, 0.0) for state in ("reserved", "committed")}
    for state, cost in runs.values():
        sums[state] += cost
    listed = tuple((run, state, cost) for run, (state, cost) in runs.items())
    head = sha256(canonical_json(entries[-1])) if entries else _START
    return Account(sums["committed"], sums["reserved"], budget, listed, len(entries), head)


def read_entries(store: RunStore, ledger: str) -> list[dict[str, Any]]:
    """All entries, oldest first, as they are: `check` says whether they hold.

    Raises:
        ConfigurationError: when the name cannot be that of a ledger.
        LedgerError: when an entry cannot be read.
    """
    if not _NAME.fullmatch(ledger):
        raise ConfigurationError(f"{ledger!r} is no name of a ledger: letters, digits, '.', '_' and '-'")
    entries: list[dict[str, Any]] = []
    while store.exists(key := _key(ledger, len(entries) + 1)):
        try:
            entry = json.loads(store.read(key))
        except ValueError as error:
            raise LedgerError(f"entry {len(entries) + 1} of ledger {ledger} is no JSON: {error}") from error
        if not isinstance(entry, dict) or entry.keys() != _FIELDS or not _numbers(entry):
            raise LedgerError(f"entry {len(entries) + 1} of ledger {ledger} has not the fields of one")
        entries.append(entry)
    return entries


def _numbers(entry: dict[str, Any]) -> bool:
    return all(isinstance(entry[name], int | float) and entry[name] >= 0 for name in ("epsilon", "delta"))


def ledgers(store: RunStore) -> list[str]:
    """The names of the ledgers in a store."""
    return store.folders("ledger")


def check(
    store: RunStore, ledger: str, entries: list[dict[str, Any]], trusted: str | None = None, head: str | None = None
) -> list[str]:
    """What is wrong with a ledger, by entry; nothing for a sound one.

    Args:
        store: Where it is.
        ledger: Its name.
        entries: From `read_entries`.
        trusted: Public key that must have signed, 64 hex digits; that of the first entry if not given.
        head: SHA-256 of an entry that is known to have been there, such as the newest of some day.
    """
    found, previous, known = [], _START, dict[str, tuple[str, Cost]]()
    passed = {_START}
    for number, entry in enumerate(entries, 1):
        key = trusted or entries[0]["key"]
        cost = Cost(entry["epsilon"], entry["delta"])
        state = known.get(entry["run"])
        if entry["sequence"] != number:
            found.append(f"entry {number}: it says that it is entry {entry['sequence']}")
        if entry["previous"] != previous:
            found.append(f"entry {number}: it does not follow the entry before it")
        if entry["key"] != key or not _signed(ledger, entry):
            found.append(f"entry {number}: the signature is not that of key {key[:16]}…")
        if entry["kind"] == "commit" and (state is None or state[0] != "reserve" or cost.exceeds(state[1])):
            found.append(f"entry {number}: run {entry['run']} commits what it did not reserve")
        if entry["kind"] == "reserve" and state is not None:
            found.append(f"entry {number}: run {entry['run']} reserves twice")
        known[entry["run"]] = (entry["kind"], cost)
        previous = sha256(canonical_json(entry))
        passed.add(previous)
    if head is not None and head not in passed:
        found.append(f"no entry has the digest {head[:16]}…, which was the head: entries were removed or replaced")
    # In this order: others may append while this one looks.
    if store.exists(_key(ledger, len(entries) + 2)) and not store.exists(_key(ledger, len(entries) + 1)):
        found.append(f"entry {len(entries) + 1}: it is missing, and a later one is there")
    return found


def _sound(store: RunStore, ledger: str, key: Identity) -> list[dict[str, Any]]:
    entries = read_entries(store, ledger)
    if entries and entries[0]["key"] != key.public and not check(store, ledger, entries):
        raise LedgerError(
            f"ledger {ledger} in the run store {store.url} is signed with key {entries[0]['key'][:16]}…, and the "
            f"server's folder has {key.public[:16]}…; bring back the ledger.pem that began it"
        )
    problems = check(store, ledger, entries, key.public)
    if problems:
        raise LedgerError(f"ledger {ledger} in the run store {store.url} does not hold: {problems[0]}")
    return entries


def _append(
    store: RunStore,
    ledger: str,
    entries: list[dict[str, Any]],
    kind: str,
    run: str,
    job: str,
    cost: Cost,
    budget: Cost | None,
    key: Identity,
) -> bool:
    entry = {
        "sequence": len(entries) + 1,
        "previous": sha256(canonical_json(entries[-1])) if entries else _START,
        "kind": kind,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run,
        "job": job,
        "epsilon": cost.epsilon,
        "delta": cost.delta,
        "budget": None if budget is None else vars(budget),
        "key": key.public,
    }
    signature = key.sign(b"ledger" + canonical_json([ledger, entry])).hex()
    return store.create(_key(ledger, len(entries) + 1), canonical_json({**entry, "signature": signature}))


def _signed(ledger: str, entry: dict[str, Any]) -> bool:
    unsigned = {name: value for name, value in entry.items() if name != "signature"}
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry["key"]))
        public.verify(bytes.fromhex(entry["signature"]), b"ledger" + canonical_json([ledger, unsigned]))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _key(ledger: str, number: int) -> str:
    return f"ledger/{ledger}/{number:08d}.json"
