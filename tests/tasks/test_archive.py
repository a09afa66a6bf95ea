"""Retention: what goes and what stays, whatever happens in between."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedloom.cli import main
from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.tasks.archive import Clearance, carry_out, survey
from fedloom.tasks.errors import StoreError
from fedloom.tasks.retention import audit_period, term
from fedloom.tasks.step import Run
from fedloom.tasks.store import RunStore
from tests.conftest import write_job

NOW = datetime(2026, 11, 24, tzinfo=UTC)
YEAR = timedelta(days=365)


def silent(line: str) -> None:
    pass


TERMS = [
    ("running", False, "failed", True, None, "active", None),
    ("ended", False, "active", True, None, "active", None),
    ("ended", False, None, False, None, "active", None),
    ("ended", False, "completed", True, None, "completed", 730),
    ("ended", False, "failed", True, None, "failed", 183),
    ("ended", False, "draft", True, None, "experimental", 365),
    ("ended", False, None, True, None, "experimental", 365),
    ("ended", True, "active", True, None, "experimental", 365),
    ("failed", False, "active", True, None, "failed", 183),
    ("unknown", False, "active", False, None, "failed", 183),
    ("ended", False, "completed", True, "5 years", "completed", 1826.25),
    ("ended", False, "completed", True, "30 days", "completed", 730),
    ("ended", False, "completed", True, "as long as needed", "completed", None),
]


@pytest.mark.parametrize(("state", "baseline", "section", "known", "audit", "kind", "days"), TERMS)
def test_a_run_is_kept_as_its_state_and_its_job_say(
    state: str, baseline: bool, section: str | None, known: bool, audit: str | None, kind: str, days: float | None
) -> None:
    found = term(state, baseline, section, known, audit, NOW)  # type: ignore[arg-type]
    assert found.kind == kind
    assert found.until == (None if days is None else NOW + timedelta(days=days))
    assert found.reason


@pytest.mark.parametrize(
    ("text", "days"), [("90 days", 90), ("1 month", 30.5), ("2 weeks", 14), ("2.5 years", 913.125), ("soon", None)]
)
def test_retention_periods_are_read(text: str, days: float | None) -> None:
    assert audit_period(text) == (None if days is None else timedelta(days=days))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three old runs of one job: an early champion, one that was withheld, and a third."""
    folder, runs = tmp_path_factory.mktemp("old"), []
    for seed, wanted in ((7, 0.0), (8, 1.0), (9, 0.0)):
        bundle = load_job(write_job(folder / "tiny", seed=seed, num_rounds=2, metrics={"auc": wanted}))
        plan = compile_plan(bundle)
        runs.append(open_run(plan, bundle, str(folder / "store")))
        simulate(plan, runs[-1])
    age(runs[0], 3 * YEAR)
    return runs


@pytest.fixture
def three(old: list[Run], tmp_path: Path) -> list[Run]:
    """The same in a store of this test's own."""
    store = RunStore(str(shutil.copytree(old[0].store.local_folder or "", tmp_path / "store")))
    return [replace(run, store=store) for run in old]


def age(run: Run, by: timedelta) -> None:
    """Let the store of a run have been written so long ago."""
    folder = run.store.local_folder
    assert folder is not None
    then = (datetime.now(UTC) - by).timestamp()
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def keys(store: RunStore) -> set[str]:
    return {entry.key for folder in store.folders("") for entry in store.objects(folder)}


def look(store: RunStore) -> Clearance:
    return survey(store, {"fl-tiny": "completed"}, datetime.now(UTC))


def test_what_a_champion_needs_stays_and_the_rest_leaves_its_record(three: list[Run]) -> None:
    store = three[0].store
    holder = store.read_json("champions/fl-tiny.json")
    before, found = keys(store), look(store)
    assert keys(store) == before
    gone = {fate.run_id for fate in found.going}
    compared = store.read_json(f"runs/{holder['run_id']}/round-00002/evidence.json")["champion"]
    assert gone == {run.run_id for run in three} - {holder["run_id"], compared}
    assert three[1].run_id in gone
    carry_out(store, found, silent)
    after = keys(store)
    assert not [key for key in after if key.split("/")[1] in gone and key.startswith("runs/")]
    assert {key.split("/")[2] for key in after if key.startswith("history/")} == {run.run_id for run in three} - gone
    assert f"models/{holder['model_digest']}.safetensors" in after
    assert {key for key in before if key.startswith(f"runs/{holder['run_id']}/")} <= after
    for run in three:
        if run.run_id not in gone:
            for line in store.read(run.key("round.jsonl")).splitlines():
                assert f"models/{json.loads(line)['model_digest']}.safetensors" in after
    assert any(key.startswith("models/") for key in before - after)
    (record,) = [entry.key for entry in store.objects(f"archive/{three[1].run_id}")]
    with zipfile.ZipFile(io.BytesIO(store.read(record))) as archive:
        names = set(archive.namelist())
        assert names == {
            "plan.json", "about.json", "summary.json", "evidence.json", "metrics.csv", "model_card.md",
        }  # fmt: skip
        assert json.loads(archive.read("summary.json"))["run_id"] == three[1].run_id
        assert json.loads(archive.read("evidence.json"))["decision"] == "fail"
        assert not [name for name in names if b'"c1"' in archive.read(name)]
    assert look(store).going == ()
    assert {fate.run_id for fate in look(store).runs} == {run.run_id for run in three} - gone


class Dying(RunStore):
    """A store whose process ends after some writes and deletions."""

    def __init__(self, url: str, left: int) -> None:
        super().__init__(url)
        object.__setattr__(self, "left", left)

    def _spend(self) -> None:
        if self.left == 0:  # type: ignore[attr-defined]
            raise StoreError("killed")
        object.__setattr__(self, "left", self.left - 1)  # type: ignore[attr-defined]

    def delete(self, key: str) -> None:
        self._spend()
        super().delete(key)

    def write(self, key: str, data: bytes):  # type: ignore[no-untyped-def]
        self._spend()
        return super().write(key, data)


def test_it_may_be_stopped_anywhere_and_done_again(three: list[Run], tmp_path: Path) -> None:
    folder = three[0].store.local_folder
    assert folder is not None
    whole = RunStore(str(shutil.copytree(folder, tmp_path / "whole")))
    carry_out(whole, look(whole), silent)
    wanted = keys(whole)
    steps = 0
    while True:
        store = RunStore(str(shutil.copytree(folder, tmp_path / f"cut-{steps}")))
        try:
            carry_out(Dying(store.url, steps), look(store), silent)
        except StoreError:
            carry_out(store, look(store), silent)
            assert keys(store) == wanted, steps
            steps += 3
            continue
        break
    assert steps > 20


def test_two_at_once_do_no_harm(three: list[Run], tmp_path: Path) -> None:
    store = three[0].store
    whole = RunStore(str(shutil.copytree(store.local_folder or "", tmp_path / "whole")))
    carry_out(whole, look(whole), silent)
    plans = [look(store), look(store)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda found: carry_out(store, found, silent), plans))
    assert {key for key in keys(store) if not key.startswith("archive/")} == {
        key for key in keys(whole) if not key.startswith("archive/")
    }
    assert store.objects(f"archive/{three[1].run_id}")


def test_what_fedloom_did_not_write_stays(three: list[Run]) -> None:
    store = three[1].store
    for key in (three[1].key("notes.txt"), "models/readme.md", "own/thing.json"):
        store.write(key, b"mine")
    age(three[1], 3 * YEAR)
    carry_out(store, look(store), silent)
    assert {three[1].key("notes.txt"), "models/readme.md", "own/thing.json"} <= keys(store)
    assert not store.exists(three[1].key("plan.json"))


def test_control_variates_belong_to_their_run(make_run: Callable[..., Run]) -> None:
    run = make_run(algorithm="SCAFFOLD", hyperparameters={"learning_rate": 0.1, "optimizer": "SGD"}, num_rounds=2)
    simulate(compile_plan(load_job(run.folder)), run)
    assert any("/scaffold/" in key for key in keys(run.store))
    (fate,) = look(run.store).runs
    assert fate.others == ()


def test_messages_to_a_second_server_go_with_their_run(make_run: Callable[..., Run]) -> None:
    secure = {"enabled": True, "protocol": "two_server"}
    privacy = {"differential_privacy": {"enabled": False}, "secure_aggregation": secure}
    changes = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": privacy}
    run = make_run(**changes, orchestration_config={"aggregation": {"min_quorum": 3}}, min_clients=4, num_rounds=1)
    simulate(compile_plan(load_job(run.folder)), run)
    assert any(key.endswith(".sealed") for key in keys(run.store))
    (fate,) = look(run.store).runs
    assert fate.others == ()


def test_a_run_that_anything_else_in_the_store_names_stays(three: list[Run]) -> None:
    store = three[1].store
    store.write_json("rollouts/tiny.json", {"from": three[1].run_id})
    age(three[1], 3 * YEAR)
    fate = next(fate for fate in look(store).runs if fate.run_id == three[1].run_id)
    assert fate.kept == "rollouts/tiny.json refers to it"


def test_what_a_run_began_with_stays_and_what_that_began_with(make_run: Callable[..., Run]) -> None:
    runs: list[Run] = []
    for source in (None, "run:", "run:"):
        if runs:
            age(runs[-1], 3 * YEAR)
        own = source and source + runs[-1].run_id
        runs.append(make_run(model_source=own, num_rounds=1, metrics={"auc": 1.0}, seed=len(runs)))
        simulate(compile_plan(load_job(runs[-1].folder)), runs[-1])
    fates = {fate.run_id: fate for fate in look(runs[0].store).runs}
    assert [fates[run.run_id].term.until < datetime.now(UTC) for run in runs] == [True, True, False]  # type: ignore
    for before, after in pairwise(runs):
        assert fates[before.run_id].kept == f"runs/{after.run_id}/plan.json refers to it"


def test_a_run_that_is_new_or_has_no_plan_stays(make_run: Callable[..., Run]) -> None:
    run = make_run()
    (fate,) = look(run.store).runs
    assert fate.kept == "it is running"
    age(run, 3 * YEAR)
    assert [fate.run_id for fate in look(run.store).going] == [run.run_id]
    run.store.delete(run.key("plan.json"))
    assert look(run.store).going == ()


def test_the_command_changes_nothing_unless_told(three: list[Run], tmp_path: Path) -> None:
    store, index = three[0].store, tmp_path / "index.yaml"
    entry = {
        "job_id": "fl-tiny", "name": "Tiny", "version": "1.0.0", "status": "completed", "owner": "me",
        "created_at": "2020-01-01T00:00:00Z", "completed_at": "2021-01-01T00:00:00Z", "spec_location": "job.yaml",
    }  # fmt: skip
    index.write_text(json.dumps({"version": "1.0.0", "completed_jobs": [entry]}))
    before = keys(store)
    words = ["archive", "--store", store.url, "--index", str(index)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert f"remove  {three[1].run_id}  completed: the registry lists its job as completed" in done.output
    assert "nothing was changed" in done.output
    assert keys(store) == before
    assert CliRunner().invoke(main, words[:3]).output.count("remove ") == 0
    applied = json.loads(CliRunner().invoke(main, [*words, "--apply", "--json"]).stdout)
    assert applied["applied"] is True
    assert not store.exists(three[1].key("plan.json"))
