"""The run store and client data on a real S3 API."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.result import read_result
from fedloom.specs.bundle import load_job
from fedloom.tasks.archive import carry_out, survey
from fedloom.tasks.errors import StoreError
from fedloom.tasks.privacy.ledger import BudgetError, Cost, account, check, ledgers, read_entries, reserve, signer
from fedloom.tasks.reporting.data import read_run
from fedloom.tasks.reporting.records import overviews
from fedloom.tasks.step import Run
from fedloom.tasks.store import RunStore


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-value")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"fleet-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_run_on_s3_gives_the_same_model_as_one_in_a_folder(bucket: str, make_run: Callable[..., Run]) -> None:
    results = []
    for store in (f"{bucket}/runs", None):
        run = make_run(store)
        plan = compile_plan(load_job(run.folder))
        simulate(plan, run)
        results.append(read_result(run))
    assert results[0].model_digest == results[1].model_digest
    assert results[0].gate == results[1].gate
    on_s3 = s3fs.S3FileSystem().find(f"{bucket}/runs")
    assert any(key.endswith("/runs/champions/fl-tiny.json") for key in on_s3)
    assert not any(b"test-secret-value" in s3fs.S3FileSystem().cat_file(key) for key in on_s3)


def test_of_many_that_create_an_object_one_does(bucket: str) -> None:
    stores = [RunStore(f"{bucket}/runs") for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda i: stores[i].create("one", bytes([i])), range(6)))
    assert won.count(True) == 1
    assert stores[0].read("one") == bytes([won.index(True)])
    assert stores[0].folders("") == []
    assert stores[0].create("below/two", b"")
    assert stores[0].folders("") == ["below"]


def test_runs_at_once_on_s3_cannot_overspend(bucket: str) -> None:
    def charge(number: int) -> bool:
        try:
            reserve(
                RunStore(f"{bucket}/runs"), "fleet", f"run-{number}", "j", Cost(1.0, 1e-5), Cost(3.0, 1.0), signer()
            )
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(charge, range(6))) == 3
    store = RunStore(f"{bucket}/runs")
    entries = read_entries(store, "fleet")
    assert check(store, "fleet", entries) == []
    assert account(entries).reserved.epsilon == 3.0
    assert ledgers(store) == ["fleet"]


def test_runs_on_s3_are_listed_reported_and_removed(bucket: str, make_run: Callable[..., Run]) -> None:
    run = make_run(f"{bucket}/runs", num_rounds=1)
    simulate(compile_plan(load_job(run.folder)), run)
    store = run.store
    (seen,) = overviews(store)
    assert (seen.run_id, seen.state, seen.decision) == (run.run_id, "ended", "pass")
    record = read_run(store, run.run_id)
    assert record.participation is not None
    assert sum(record.participation.gave.values()) == 6
    assert [entry.key for entry in store.objects(f"runs/{run.run_id}", deep=False)][:2] == [
        run.key("about.json"),
        run.key("initialise.json"),
    ]
    later = datetime.now(UTC) + timedelta(days=1000)
    (kept,) = survey(store, {"fl-tiny": "completed"}, later).runs
    assert kept.kept == "champions/fl-tiny.json refers to it"
    store.delete("champions/fl-tiny.json")
    carry_out(store, survey(store, {"fl-tiny": "completed"}, later), lambda line: None)
    assert [folder for folder in store.folders("") if store.objects(folder)] == ["archive"]
    store.delete("not-there")
    assert store.read_many(["not-there"]) == {}


def test_a_missing_bucket_is_a_clear_error(bucket: str) -> None:
    with pytest.raises(StoreError, match=r"cannot write k\.json to the run store s3://nowhere/runs"):
        RunStore("s3://nowhere/runs").write("k.json", b"{}")
    with pytest.raises(StoreError, match=r"k\.json from the run store .*: it is not there"):
        RunStore(f"{bucket}/runs").read("k.json")
