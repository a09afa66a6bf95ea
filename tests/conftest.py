"""A small real job that runs in a second: six clients with CSV files, a fault to find, a holdout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

from fedloom.flows.compile import compile_plan
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.tasks.step import Run

# Properties are judged by what they say, not by how long a busy machine takes to try them.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

CLIENTS = [f"c{i}" for i in range(6)]

JOB: dict[str, Any] = {
    "job_id": "fl-tiny",
    "architecture": "MLP",
    "version": "1.0.0",
    "input_schema": "contract.yaml#imu",
    "output_schema": "binary_classification",
    "window_size": 8,
    "model_hyperparameters": {"hidden_dims": [8]},
    "algorithm": "FedAvg",
    "hyperparameters": {"learning_rate": 0.01, "optimizer": "Adam"},
    "local_epochs": 2,
    "batch_size": 16,
    "num_rounds": 3,
    "seed": 7,
    "schedule": "on_demand",
    "client_selection": "random",
    "min_clients": 2,
    "max_clients": 6,
    "orchestration_config": {"shard_size": 2, "aggregation": {"min_quorum": 2}},
    "holdout": "holdout.csv",
    "metrics": {"auc": 0.6},
    "differential_privacy": False,
    "secure_aggregation": False,
}

CONTRACT: dict[str, Any] = {
    "contract_metadata": {"contract_id": "tiny", "version": "1.0.0"},
    "schema": {
        "format": "csv",
        "signals": [{"name": "a", "mean": 0.0, "std": 1.0}, {"name": "b", "mean": 0.0, "std": 1.0}],
        "signal_groups": {"imu": ["a", "b"]},
    },
}


def write_signals(path: Path, seed: int, rows: int = 320) -> None:
    """Noise, with an offset on signal "a" in every second block of 16 samples (label 1)."""
    rng = np.random.default_rng(seed)
    label = (np.arange(rows) // 16) % 2
    a, b = rng.normal(size=rows) + 0.6 * label, rng.normal(size=rows)
    lines = [f"{x:.5f},{y:.5f},{z}" for x, y, z in zip(a, b, label, strict=True)]
    path.write_text("a,b,label\n" + "\n".join(lines) + "\n")


def write_job(folder: Path, **changes: Any) -> Path:
    """A job folder; `changes` replace top-level keys of the job, None removes them."""
    folder.mkdir(parents=True, exist_ok=True)
    job = {key: value for key, value in {**JOB, **changes}.items() if value is not None}
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    (folder / "contract.yaml").write_text(yaml.safe_dump(CONTRACT, sort_keys=False))
    rows = [f"{client},data/{client}.csv,{320 - i}" for i, client in enumerate(CLIENTS)]
    (folder / "fleet.csv").write_text("client_id,data,data_samples\n" + "\n".join(rows) + "\n")
    (folder / "data").mkdir(exist_ok=True)
    for i, client in enumerate(CLIENTS):
        write_signals(folder / "data" / f"{client}.csv", seed=i)
    write_signals(folder / "holdout.csv", seed=100)
    return folder


@pytest.fixture(autouse=True)
def own_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's simulated clients."""
    monkeypatch.setenv("FEDLOOM_CLIENTS", str(tmp_path / "clients"))
    monkeypatch.setenv("FEDLOOM_SERVER", str(tmp_path / "server"))
    monkeypatch.setenv("FEDLOOM_SECOND_SERVER", str(tmp_path / "second-server"))
    return tmp_path / "clients"


@pytest.fixture
def tiny_job(tmp_path: Path) -> Path:
    return write_job(tmp_path / "tiny")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Open a run of the tiny job, changed as asked."""

    def make(store: str | None = None, name: str = "", **changes: Any) -> Run:
        bundle = load_job(write_job(tmp_path / "tiny", **changes))
        return open_run(compile_plan(bundle), bundle, store or str(tmp_path / "store"), name)

    return make


@pytest.fixture(scope="session")
def quiet_environment() -> dict[str, str]:
    """The environment of command-line tests: nothing of Prefect or fedloom leaks in from outside."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FEDLOOM_"))}
    return kept | {
        name: os.environ[name]
        for name in ("FEDLOOM_CACHE", "FEDLOOM_WHEELS", "FEDLOOM_CLIENTS", "FEDLOOM_SERVER", "FEDLOOM_SECOND_SERVER")
        if name in os.environ
    }


@pytest.fixture
def copy_example(tmp_path: Path) -> Callable[[str], Path]:
    """A packaged example as a folder that a test may change."""
    from fedloom.specs.bundle import EXAMPLES

    def copy(name: str) -> Path:
        return Path(shutil.copytree(EXAMPLES / name, tmp_path / name))

    return copy
