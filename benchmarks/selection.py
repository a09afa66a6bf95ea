"""What choosing clients from a large fleet costs, as ratios to a plain numpy draw of the same size.

The step is timed as a run carries it out: eligibility, scores, draw, and the evidence in the run store. The draw is
numpy's own, without replacement and with probabilities. Run it with: python benchmarks/selection.py [--clients N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fedloom.flows.compile import compile_plan
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.tasks.selection.tally import Tally, empty_tally
from fedloom.tasks.step import Run, run_step

TIMES, COHORT = 5, 1000
JOB: dict[str, Any] = {
    "job_id": "fl-large-fleet",
    "architecture": "MLP",
    "version": "1.0.0",
    "input_schema": {"signals": ["a"], "window_size": 8},
    "output_schema": "binary_classification",
    "algorithm": "FedAvg",
    "hyperparameters": {"learning_rate": 0.01, "optimizer": "Adam"},
    "local_epochs": 1,
    "batch_size": 16,
    "num_rounds": 1,
    "schedule": "on_demand",
    "min_clients": 10,
    "max_clients": COHORT,
    "differential_privacy": False,
    "secure_aggregation": False,
}
SELECTOR: dict[str, Any] = {
    "selector_metadata": {"selector_id": "selector-large", "name": "Large", "version": "1.0.0"},
    "eligibility_criteria": {"min_data_samples": 1},
    "selection_algorithm": {"algorithm": "random", "num_clients": COHORT},
    "fairness_policy": {"enabled": False},
}
SCORED = {"selection_algorithm": {"algorithm": "importance_sampling", "num_clients": COHORT, "exploration_rate": 0.1}}
FAIR: dict[str, Any] = {
    "enabled": True,
    "period": "quarter",
    "min_participation_per_period": 1,
    "max_participation_per_period": 3,
    "ensure_tail_participation": True,
    "tail_participation_rate": 0.2,
    "group_parity": {"enabled": True, "dimensions": ["aircraft_type", "operator"], "tolerance": 0.02},
}
CASES: dict[str, dict[str, Any]] = {
    "random": {},
    "six criteria, a third eligible": {
        "eligibility_criteria": {
            "min_data_samples": 3000,
            "data_quality_threshold": 0.2,
            "no_open_ncrs": True,
            "aircraft_types": ["A320", "A350"],
            "aircraft_age_range": {"min_years": 1.0, "max_years": 30.0},
        }
    },
    "an expression": {
        "eligibility_criteria": {"min_data_samples": 1, "where": 'data_samples > 5000 && operator in ["A", "B"]'}
    },
    "importance, exploring": SCORED,
    "importance, strata, fairness, parity": {
        "selection_algorithm": SCORED["selection_algorithm"] | {"stratify_by": ["aircraft_type", "operator"]},
        "fairness_policy": FAIR,
    },
}


def write_fleet(folder: Path, clients: int) -> None:
    """A roster with the columns that the cases read."""
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "client_id": [f"client-{i:06d}" for i in range(clients)],
            "data": [f"data/{i:06d}.parquet" for i in range(clients)],
            "data_samples": rng.integers(100, 9000, clients),
            "data_quality": rng.random(clients),
            "open_ncrs": rng.integers(0, 2, clients) * rng.integers(0, 2, clients),
            "aircraft_age": rng.random(clients) * 35,
            "aircraft_type": rng.choice(["A320", "A350", "B787"], clients, p=[0.6, 0.3, 0.1]),
            "operator": rng.choice(list("ABCDEFGH"), clients),
        }
    )
    pq.write_table(table, folder / "fleet.parquet")


def open_case(folder: Path, case: dict[str, Any]) -> Run:
    """A run of the large job with one of the selectors."""
    selector = SELECTOR | case
    job = JOB | {"client_selection": selector["selection_algorithm"]["algorithm"]}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    (folder / "selector.yaml").write_text(yaml.safe_dump(selector))
    bundle = load_job(folder)
    return open_run(compile_plan(bundle), bundle, str(folder / "store"), "case")


def earlier_rounds(run: Run) -> Tally:
    """A tally in which every client has been asked, and some have given their share."""
    rng, clients = np.random.default_rng(1), len(run.fleet)
    tally = empty_tally(clients, "2026-11-24T00:00:00+00:00", "quarter")
    tally.counts["asked"][:] = 1
    for name in ("gave", "in_period"):
        tally.counts[name][:] = rng.integers(0, 4, clients)
    tally.figures["norm"][:] = rng.random(clients)
    return tally


def seconds(work: Callable[[], Any]) -> float:
    """CPU time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def select_once(run: Run, number: int) -> float:
    """The step on a run that has not selected yet."""
    fresh = replace(run, name=f"case-{number}")
    if run.recipe.selection.reads_history:
        fresh.store.write(fresh.key("round-00001", "tally.json"), earlier_rounds(run).dump(run.fleet.clients))
    return seconds(lambda: run_step(fresh, "select", 1))


def main() -> None:
    """Time the draw and the step for each case, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100_000)
    clients = parser.parse_args().clients
    chances = np.random.default_rng(0).random(clients)
    chances /= chances.sum()
    rng = np.random.default_rng(0)
    draw = statistics.median(
        seconds(lambda: rng.choice(clients, COHORT, replace=False, p=chances)) for _ in range(TIMES)
    )
    print(f"{clients:,} clients, {COHORT:,} drawn; median of {TIMES}      CPU ms  ratio")
    print(f"{'numpy: choice without replacement':<46} {1000 * draw:8.1f} {1:6.0f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_fleet(folder, clients)
        for title, case in CASES.items():
            run = open_case(folder, case)
            taken = statistics.median(select_once(run, number) for number in range(TIMES))
            print(f"{title:<46} {1000 * taken:8.1f} {taken / draw:6.0f}", flush=True)


if __name__ == "__main__":
    main()
