"""Real processes, killed without warning, started again: the same model in the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import write_job


def start(engine: str, job: Path, store: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedloom", engine, str(job), "--store", str(store), "--json"]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=job.parent
    )


def finish(engine: str, job: Path, store: Path, environment: dict[str, str]) -> dict[str, Any]:
    process = start(engine, job, store, environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    result: dict[str, Any] = json.loads(out)
    return result


def kill_after(process: subprocess.Popen[str], store: Path, writes: int) -> None:
    """Kill the process when the store has so many more objects than at its start."""
    at_start = count(store)
    while process.poll() is None and count(store) < at_start + writes:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"


def count(store: Path) -> int:
    return sum(path.suffix != ".tmp" for path in store.rglob("*.*"))


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "points"), [("simulate", [1, 2, 5, 7, 11]), ("run", [3, 9])])
def test_a_run_killed_anywhere_ends_with_the_same_model(
    tiny_job: Path, tmp_path: Path, quiet_environment: dict[str, str], engine: str, points: list[int]
) -> None:
    environment = quiet_environment | {"PREFECT_HOME": str(tmp_path / "prefect")}
    store = tmp_path / "killed"
    for writes in points:
        kill_after(start(engine, tiny_job, store, environment), store, writes)
        no_server_left(tmp_path)
    killed = finish(engine, tiny_job, store, environment)
    whole = finish("simulate", tiny_job, tmp_path / "whole", environment)
    assert killed["model_digest"] == whole["model_digest"]
    assert killed["metrics"] == whole["metrics"]
    assert killed["gate"]["decision"] == whole["gate"]["decision"] == "pass"
    rounds = [path.read_bytes() for folder in (store, tmp_path / "whole") for path in folder.rglob("round.jsonl")]
    assert rounds[0] == rounds[1]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["pairwise", "two_server"])
def test_secure_aggregation_killed_anywhere_ends_with_the_same_model(
    tmp_path: Path, quiet_environment: dict[str, str], protocol: str
) -> None:
    privacy = {
        "differential_privacy": {"enabled": False},
        "secure_aggregation": {"enabled": True, "protocol": protocol},
    }
    changes: dict[str, Any] = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": privacy}
    job = write_job(tmp_path / "job", min_clients=4, num_rounds=2, **changes)
    own = {name: os.environ[name] for name in ("FEDLOOM_CLIENTS", "FEDLOOM_SERVER", "FEDLOOM_SECOND_SERVER")}
    environment = quiet_environment | own
    for writes in (9, 7, 5):
        kill_after(start("simulate", job, tmp_path / "killed", environment), tmp_path / "killed", writes)
    killed = finish("simulate", job, tmp_path / "killed", environment)
    whole = finish("simulate", job, tmp_path / "whole", environment)
    assert killed["participation"] == whole["participation"] == {"asked": 12, "updates": 12}
    assert killed["model_digest"] == whole["model_digest"]


def no_server_left(home: Path) -> None:
    """A private Prefect server ends with the run that it serves, however that ended."""
    deadline = time.monotonic() + 30
    while servers := [p for p in psutil.process_iter() if _is_server(p, home)]:
        assert time.monotonic() < deadline, servers
        time.sleep(0.1)


def _is_server(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get("PREFECT_HOME", "").startswith(str(home))
    except psutil.Error:
        return False


@pytest.mark.slow
def test_two_runs_of_one_plan_at_once_agree(tiny_job: Path, tmp_path: Path, quiet_environment: dict[str, str]) -> None:
    both = [start("simulate", tiny_job, tmp_path / "store", quiet_environment) for _ in range(2)]
    results = []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        results.append(json.loads(out))
    assert results[0] == results[1]
