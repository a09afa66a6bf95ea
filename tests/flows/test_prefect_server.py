"""Every check runs real processes: what matters is what a fresh one prints, leaves behind and records."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from fedloom.flows import prefect_server

FLOW = """
from fedloom.flows.prefect_server import prefect_api
print("before", flush=True)
with prefect_api():
    import logging
    from prefect import flow, get_run_logger, task
    from prefect.artifacts import create_table_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.task_runners import ThreadPoolTaskRunner

    @task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
    def step(name):
        get_run_logger().info("step %s", name)
        return {"name": name}

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=3), persist_result=False)
    def rounds(n):
        last = []
        for i in range(n):
            shards = [step.submit(f"train r{i} s{k}", wait_for=last) for k in range(3)]
            last = [step.submit(f"aggregate r{i}", wait_for=shards)]
        create_table_artifact(key="metrics", table=[{"round": 1, "loss": 0.5}])
        return last[0].result()["name"]

    print(rounds(10))
print("after")
"""

FAILURES = """
import json, os, signal, urllib.request
from fedloom.flows.prefect_server import prefect_api
with prefect_api() as url:
    from prefect import flow, task

    @task
    def broken(): raise ValueError("the step's own error")

    @flow
    def fails(): broken.submit().result()

    @flow
    def interrupted(): os.kill(os.getpid(), signal.SIGINT)

    try: fails()
    except ValueError as error: print(error)
    try: interrupted()
    except KeyboardInterrupt: print("interrupted")
    root = url.removesuffix("/api")
    open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    page = open_url(urllib.request.Request(root, headers={"Accept": "text/html"})).read()
    assert b"<html" in page, page
    assert json.load(open_url(root + "/ui-settings"))["api_url"] == url
"""

SERVE = """
import sys
from fedloom.flows.prefect_server import prefect_api
with prefect_api() as url:
    print(url, flush=True)
    sys.stdin.read()
"""

REPORT = """
import sys
from pathlib import Path
from fedloom.flows import prefect_server
prefect_server._REMOTE_SECONDS = 1
try:
    with prefect_server.prefect_api() as url:
        print(url)
except prefect_server.PrefectUnavailable as error:
    sys.exit(str(error))
"""


def start(script: str, home: Path, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    root = str(Path(prefect_server.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=inherited | {"PYTHONPATH": root, "HOME": str(home), "PREFECT_HOME": str(home)} | environment,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def rows(home: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return database.execute(query).fetchall()


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home on which two runs have started at once when it was fresh."""
    home = tmp_path_factory.mktemp("prefect")
    processes = [start(FLOW, home) for _ in range(2)]
    assert [finish(process) for process in processes] == [(0, "before\naggregate r9\nafter\n", "")] * 2
    return home


@pytest.fixture
def server(used_home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = start(SERVE, used_home)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_two_runs_on_a_fresh_home_are_silent_and_recorded_to_the_last_task(used_home: Path) -> None:
    assert rows(used_home, "select state_type, count(*) from flow_run group by 1") == [("COMPLETED", 2)]
    assert rows(used_home, "select state_type, count(*) from task_run group by 1") == [("COMPLETED", 80)]
    assert rows(used_home, "select count(*) from artifact where key = 'metrics'") == [(2,)]
    assert rows(used_home, "select count(*) from log where message like 'step %'") == [(80,)]
    assert ("aggregate r9",) in rows(used_home, "select name from task_run")
    assert "Traceback" not in (used_home / "server.log").read_text()


def test_failures_and_ctrl_c_print_no_traceback_and_the_ui_is_served(used_home: Path) -> None:
    # A proxy that answers nothing: the run must not send the loopback address to it.
    proxy = "http://127.0.0.1:9"
    process = start(FAILURES, used_home, HTTP_PROXY=proxy, http_proxy=proxy, ALL_PROXY=proxy)
    assert finish(process) == (0, "the step's own error\ninterrupted\n", "")
    states = rows(used_home, "select f.name, r.state_type from flow_run r join flow f on f.id = r.flow_id order by 1")
    assert ("fails", "FAILED") in states
    assert ("interrupted", "CRASHED") in states


def test_a_killed_run_leaves_no_server(server: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = server
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 1
    os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


def test_a_configured_api_is_used_as_it_is(server: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    _, url = server
    assert finish(start(REPORT, tmp_path, PREFECT_API_URL=url)) == (0, f"{url}\n", "")
    # A flow of another home, through the profile that `prefect config set` writes.
    (tmp_path / "profiles.toml").write_text(f'active = "team"\n[profiles.team]\nPREFECT_API_URL = {json.dumps(url)}\n')
    assert finish(start(FLOW, tmp_path)) == (0, "before\naggregate r9\nafter\n", "")
    assert not (tmp_path / "server.log").exists()


def test_an_api_that_does_not_answer_is_reported_soon(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/api"
    begin = time.monotonic()
    code, out, err = finish(start(REPORT, tmp_path, PREFECT_API_URL=url))
    assert (code, out) == (1, "")
    assert err.startswith(f"the Prefect API at {url} does not answer")
    assert "PREFECT_API_URL" in err
    assert "Traceback" not in err
    assert time.monotonic() - begin < 30


def test_a_setting_that_prefect_rejects_is_named(tmp_path: Path) -> None:
    code, out, err = finish(start(REPORT, tmp_path, PREFECT_SERVER_API_PORT="many"))
    assert (code, out) == (1, "")
    # The line before it is Prefect's own: it comes while Prefect is imported.
    assert "Prefect rejects its settings" in err
    assert "port" in err.split("Prefect rejects its settings")[1]
    assert "Traceback" not in err


def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_text("this is not a database, it is a sentence of some length")
    code, out, err = finish(start(REPORT, tmp_path))
    assert (code, out) == (1, "")
    assert err.startswith("the private Prefect server ended")
    assert "file is not a database" in err
    assert str(tmp_path / "server.log") in err


def test_a_home_that_is_no_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, err = finish(start(REPORT, tmp_path / "file" / "home"))
    assert (code, out) == (1, "")
    assert err.startswith("cannot write to PREFECT_HOME")
    assert "Traceback" not in err


def test_what_the_user_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = {"PREFECT_HOME": str(tmp_path / "theirs"), "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}
    monkeypatch.setattr(os, "environ", dict(theirs))
    assert prefect_server.prefect_environment(tmp_path / "ours") == tmp_path / "theirs"
    assert {name: os.environ[name] for name in theirs} == theirs
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_the_profiles_of_the_user_stay_in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profiles = tmp_path / ".prefect" / "profiles.toml"
    profiles.parent.mkdir()
    profiles.touch()
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    assert prefect_server.prefect_environment(tmp_path / "ours") == tmp_path / "ours"
    assert os.environ["PREFECT_PROFILES_PATH"] == str(profiles)
