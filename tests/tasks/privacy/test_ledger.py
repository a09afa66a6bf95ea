"""The ledger: nobody overspends, nothing is lost, and what was changed is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from fedloom.cli import main
from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.privacy.ledger import (
    BudgetError,
    Cost,
    LedgerError,
    _append,
    account,
    check,
    commit,
    ledgers,
    read_entries,
    reserve,
    signer,
)
from fedloom.tasks.secure_aggregation.identity import Identity
from fedloom.tasks.store import RunStore
from tests.conftest import CONTRACT
from tests.flows.test_budget import RECORDS, job

NAME, BUDGET = "fleet.data.record", Cost(5.0, 1e-3)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(str(tmp_path / "store"))


def charge(store: RunStore, run: str, epsilon: float = 1.0, budget: Cost | None = BUDGET) -> Any:
    return reserve(store, NAME, run, "job", Cost(epsilon, 1e-5), budget, signer())


def test_reserve_commit_and_what_is_left(store: RunStore) -> None:
    assert charge(store, "a", 3.0).reserved == Cost(3.0, 1e-5)
    assert charge(store, "a", 3.0).entries == 1  # a run that is continued is not charged twice
    with pytest.raises(BudgetError, match=r"costs epsilon 2\.5 .* 3 and 1e-05 of 5 and 0\.001 are spent or reserved"):
        charge(store, "b", 2.5)
    after = commit(store, NAME, "a", Cost(1.0, 1e-5), signer())
    assert (after.spent, after.reserved) == (Cost(1.0, 1e-5), Cost(0.0, 0.0))
    assert commit(store, NAME, "a", Cost(1.0, 1e-5), signer()) == after
    now = charge(store, "b", 2.5)
    assert now.warning is None
    now = charge(store, "c", 1.2)
    assert now.warning == "94% of the privacy budget is spent: epsilon 4.7 of 5"
    assert [(run, state) for run, state, _ in now.runs] == [("a", "committed"), ("b", "reserved"), ("c", "reserved")]
    assert check(store, NAME, read_entries(store, NAME)) == []
    assert ledgers(store) == [NAME]


def test_delta_is_a_budget_too(store: RunStore) -> None:
    with pytest.raises(BudgetError):
        reserve(store, NAME, "a", "job", Cost(0.1, 2e-3), BUDGET, signer())
    assert charge(store, "many", 1e6, budget=None).budget is None


def test_a_warning_for_delta_too(store: RunStore) -> None:
    now = reserve(store, NAME, "a", "job", Cost(0.1, 9.5e-4), BUDGET, signer())
    assert now.warning == "95% of the privacy budget is spent: delta 0.00095 of 0.001"


def test_a_run_that_has_ended_is_not_done_again_for_nothing(store: RunStore) -> None:
    charge(store, "a")
    commit(store, NAME, "a", Cost(0.5, 1e-5), signer())
    with pytest.raises(BudgetError, match=r"run a has ended and was charged .* start another with --name"):
        charge(store, "a")


def test_entries_that_were_removed_at_the_end_are_missed_by_who_kept_the_head(store: RunStore) -> None:
    folder = filled(store)
    entries = read_entries(store, NAME)
    heads = [account(entries[:number]).head for number in range(5)]
    assert all(check(store, NAME, entries, head=head) == [] for head in heads)
    arguments = ["privacy", "ledger", "verify", NAME, "--store", store.url, "--head", heads[4]]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    (folder / "00000004.json").unlink()
    assert check(store, NAME, read_entries(store, NAME)) == []
    assert check(store, NAME, read_entries(store, NAME), head=heads[3]) == []
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, "which was the head: entries were removed" in done.output) == (1, True)
    done = CliRunner().invoke(main, ["privacy", "ledger", "verify", "--store", store.url, "--head", heads[4]])
    assert (done.exit_code, "say which" in done.output) == (2, True)


def test_a_commit_needs_a_reservation_of_as_much(store: RunStore) -> None:
    with pytest.raises(LedgerError, match="has no reservation"):
        commit(store, NAME, "a", Cost(1.0, 1e-5), signer())
    charge(store, "a")
    with pytest.raises(LedgerError, match=r"has no reservation of epsilon 1\.5"):
        commit(store, NAME, "a", Cost(1.5, 1e-5), signer())


def filled(store: RunStore) -> Path:
    for run in ("a", "b", "c"):
        charge(store, run)
    commit(store, NAME, "a", Cost(0.5, 1e-5), signer())
    return Path(store.url) / "ledger" / NAME


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0.25), ("delta", 0.0), ("run", "z"), ("job", "other"), ("kind", "commit"), ("at", "2020-01-01"),
        ("budget", None), ("sequence", 7), ("previous", "0" * 63 + "1"), ("key", "ab" * 32), ("signature", "00" * 64),
    ],
)  # fmt: skip
def test_every_field_of_every_entry_counts(store: RunStore, number: int, field: str, value: Any) -> None:
    path = filled(store) / f"{number:08d}.json"
    entry = json.loads(path.read_bytes())
    if entry[field] == value:
        pytest.skip("this is no change")
    path.write_text(json.dumps(entry | {field: value}, sort_keys=True, separators=(",", ":")))
    problems = check(store, NAME, read_entries(store, NAME))
    assert problems
    assert problems[0].startswith(f"entry {number}:") or field == "key"
    with pytest.raises(LedgerError, match="does not hold"):
        charge(store, "d")


def test_entries_that_are_gone_or_swapped_or_garbage(store: RunStore) -> None:
    folder = filled(store)
    second, third = folder / "00000002.json", folder / "00000003.json"
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(LedgerError, match="entry 2: it is missing, and a later one is there"):
        charge(store, "d")
    second.write_bytes(third.read_bytes())
    third.write_bytes(kept)
    assert len(check(store, NAME, read_entries(store, NAME))) >= 2
    for garbage in (b"", b"[]", b"{}", b"\xff"):
        third.write_bytes(garbage)
        with pytest.raises(LedgerError, match="entry 3 of ledger"):
            read_entries(store, NAME)


def test_a_signed_entry_of_another_store_does_not_fit_the_chain(store: RunStore, tmp_path: Path) -> None:
    folder = filled(store)
    cheap = RunStore(str(tmp_path / "cheap"))
    for run in ("x", "b"):
        charge(cheap, run, 0.01)
    other = Path(cheap.url) / "ledger" / NAME / "00000002.json"
    (folder / "00000002.json").write_bytes(other.read_bytes())
    assert check(store, NAME, read_entries(store, NAME))[0] == "entry 2: it does not follow the entry before it"
    assert check(cheap, NAME, read_entries(cheap, NAME)) == []  # where it belongs, it holds


@pytest.mark.parametrize(
    ("kind", "run", "cost", "words"),
    [
        ("reserve", "b", 1.0, "run b reserves twice"),
        ("commit", "z", 1.0, "run z commits what it did not reserve"),
        ("commit", "b", 1.5, "run b commits what it did not reserve"),
        ("commit", "a", 0.5, "run a commits what it did not reserve"),
    ],
)
def test_a_signature_alone_makes_no_sense_of_an_entry(
    store: RunStore, kind: str, run: str, cost: float, words: str
) -> None:
    """As a faulty version of this software could sign."""
    filled(store)
    assert _append(store, NAME, read_entries(store, NAME), kind, run, "job", Cost(cost, 1e-5), BUDGET, signer())
    assert check(store, NAME, read_entries(store, NAME)) == [f"entry 5: {words}"]


def test_entries_that_others_append_meanwhile_are_no_gap(store: RunStore) -> None:
    seen = read_entries(store, NAME)
    charge(store, "a")
    charge(store, "b")
    assert check(store, NAME, seen) == []


def test_another_key_is_refused(store: RunStore) -> None:
    charge(store, "a")
    with pytest.raises(LedgerError, match=r"signed with key .* bring back the ledger\.pem that began it"):
        reserve(store, NAME, "b", "job", Cost(1.0, 1e-5), BUDGET, Identity.generate())
    assert len(read_entries(store, NAME)) == 1
    assert (Path(os.environ["FEDLOOM_SERVER"]) / "ledger.pem").stat().st_mode & 0o077 == 0
    for name in ("", "../x", "a/b", ".hidden"):
        with pytest.raises(ConfigurationError, match="no name of a ledger"):
            read_entries(store, name)


RACE = """
import sys
from fedloom.tasks.privacy.ledger import BudgetError, Cost, reserve, signer
from fedloom.tasks.store import RunStore
key = signer()
print("ready", flush=True)
sys.stdin.readline()
try:
    reserve(RunStore(sys.argv[1]), sys.argv[2], sys.argv[3], "job", Cost(1.0, 1e-5), Cost(3.0, 1.0), key)
    print("won", flush=True)
    sys.stdin.readline()
except BudgetError:
    print("refused")
"""


def racers(url: str, count: int) -> list[subprocess.Popen[str]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, url, NAME, f"run-{i}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def test_processes_at_once_cannot_overspend_and_a_crash_stays_charged(store: RunStore) -> None:
    started = racers(store.url, 6)
    words = [process.stdout.readline() for process in started if process.stdout is not None]
    assert sorted(words) == ["refused\n"] * 3 + ["won\n"] * 3
    for process in started:  # none of those that reserved gets to commit
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
    entries = read_entries(store, NAME)
    assert check(store, NAME, entries) == []
    assert account(entries).reserved == Cost(3.0, pytest.approx(3e-5))
    with pytest.raises(BudgetError):
        charge(store, "later", 1.0, Cost(3.0, 1.0))


def test_runs_of_a_job_share_the_contracts_budget(tmp_path: Path) -> None:
    folder = job(tmp_path / "job", **RECORDS, epsilon=3.0)
    demand = {"differential_privacy": {"enabled": True, "epsilon": 5.0, "delta": 1e-4}}
    (folder / "contract.yaml").write_text(yaml.safe_dump(CONTRACT | {"privacy": demand}))
    bundle = load_job(folder)
    plan, url = compile_plan(bundle), str(tmp_path / "store")
    simulate(plan, open_run(plan, bundle, url, "monday"))
    simulate(plan, open_run(plan, bundle, url, "monday"))
    with pytest.raises(BudgetError, match="does not allow this run"):
        simulate(plan, open_run(plan, bundle, url, "tuesday"))
    shown = CliRunner().invoke(main, ["privacy", "ledger", "show", "--store", url])
    assert shown.exit_code == 0
    assert "committed" in shown.output
    assert "of 5 and 0.0001" in shown.output
    verified = CliRunner().invoke(main, ["privacy", "ledger", "verify", "--store", url, "--json"])
    assert verified.exit_code == 0
    (state,) = json.loads(verified.output).values()
    assert state == {"valid": True, "problems": []}
    entry = next(Path(url).glob("ledger/*/00000001.json"))
    entry.write_bytes(entry.read_bytes().replace(b"reserve", b"reserwe"))
    broken = CliRunner().invoke(main, ["privacy", "ledger", "verify", "--store", url])
    assert (broken.exit_code, "does not hold" in broken.output) == (1, True)
    missing = CliRunner().invoke(main, ["privacy", "ledger", "show", "nothing", "--store", url])
    assert (missing.exit_code, "there is no ledger 'nothing'" in missing.output) == (2, True)
