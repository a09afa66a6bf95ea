"""A sign-flip attack on the main example: what it does to FedAvg, and what robust rules make of it.

Run it with: python benchmarks/attack.py [PICTURE.png], in an environment that has fedloom. All 16
clients of the example train in every round, without masks and noise; four of them (the smallest number that is at
least 20 %) send their updates times -4. Nothing in fedloom knows of the attack: this script wraps what these clients
do.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fedloom.flows.compile import compile_plan
from fedloom.flows.data import prepare_data
from fedloom.flows.inline import simulate
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job, resolve_job
from fedloom.tasks import train
from fedloom.tasks.client import ClientUpdate
from fedloom.tasks.rounds import read_rounds

ROUNDS, CLIENTS, SHARE, FACTOR = 15, 16, 0.2, -4.0
HOSTILE = math.ceil(SHARE * CLIENTS)
RULES: dict[str, dict[str, Any] | None] = {
    "FedAvg": None,
    "median": {"method": "median"},
    "trimmed mean": {"method": "trimmed_mean", "trimmed_mean_config": {"trim_ratio": HOSTILE / CLIENTS}},
    "Multi-Krum": {"method": "multi_krum", "krum_config": {"exclude_furthest": HOSTILE}},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        curves = {"FedAvg, no attack": auc_by_round(Path(folder), "FedAvg, no attack", None, lambda clients: ())}
        for name, rule in RULES.items():
            curves[name] = auc_by_round(Path(folder), name, rule, lambda clients: clients[:: CLIENTS // HOSTILE])
    print(f"{HOSTILE} of {CLIENTS} clients send {FACTOR:g} times their update; auc on the held-out people")
    print(f"{'round':<18}" + "".join(f"{number:>7}" for number in range(1, ROUNDS + 1)))
    for name, curve in curves.items():
        print(f"{name:<18}" + "".join(f"{value:>7.3f}" for value in curve))
    if len(sys.argv) > 1:
        draw(curves, Path(sys.argv[1]))


def auc_by_round(
    folder: Path, name: str, rule: dict[str, Any] | None, hostile: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> list[float]:
    """The area under the ROC curve after each round of a run of its own."""
    bundle = load_job(write_job(folder / name.replace(" ", "-"), rule))
    prepare_data(bundle, lambda line: print(line, file=sys.stderr))
    plan = compile_plan(bundle, rounds=ROUNDS)
    run = open_run(plan, bundle, str(folder / "runs"), name.replace(" ", "-").replace(",", ""))
    with flipping(hostile(run.fleet.clients)):
        simulate(plan, run)
    return [line["metrics"].get("auc", math.nan) for line in read_rounds(run.store.read(run.key("round.jsonl")))]


def write_job(folder: Path, rule: dict[str, Any] | None) -> Path:
    """The example with all its clients in every round, plain SGD, and neither masks nor noise."""
    example = resolve_job("aircraft_accel_v1")
    folder.mkdir()
    for file in ("contract.yaml", "fleet.yaml", "fleet.csv"):
        shutil.copy((example if example.is_dir() else example.parent) / file, folder)
    job = yaml.safe_load((example / "job.yaml" if example.is_dir() else example).read_text())
    job["training_config"] |= {"local_epochs": 2, "batch_size": 32}
    job["training_config"]["hyperparameters"]["learning_rate"] = 0.2
    off = {"enabled": False}
    job["privacy_config"] = {"differential_privacy": off, "secure_aggregation": off}
    job["orchestration_config"] |= {
        "schedule": {"type": "on_demand"},
        "client_selection": {"algorithm": "random"},
        "min_clients": CLIENTS,
        "max_clients": CLIENTS,
        "aggregation": {"weights": "num_samples", "min_quorum": CLIENTS},
    }
    if rule is not None:
        job["aggregation_config"] = {"byzantine_robust": {"enabled": True, **rule}}
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    return folder


@contextmanager
def flipping(hostile: tuple[str, ...]) -> Iterator[None]:
    """Let these clients train as told, and send another update than they got."""
    honest = train.fit

    def fit(order: Any, client: str, *rest: Any) -> ClientUpdate:
        update = honest(order, client, *rest)
        if client not in hostile:
            return update
        return dataclasses.replace(update, delta={name: FACTOR * tensor for name, tensor in update.delta.items()})

    train.fit = fit
    try:
        yield
    finally:
        train.fit = honest


def draw(curves: dict[str, list[float]], path: Path) -> None:
    """The curves, each with its name at its end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, curve in curves.items():
        style = {"linestyle": "--", "color": "0.4"} if name == "FedAvg, no attack" else {}
        axes.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, label=name, **style)
    axes.axhline(0.5, color="0.8", linewidth=1, zorder=0)
    axes.set_xlabel("round")
    axes.set_ylabel("AUC on the held-out people")
    axes.set_title(f"{HOSTILE} of {CLIENTS} clients send {FACTOR:g} × their update", fontsize=11)
    axes.set_xticks(range(1, ROUNDS + 1, 2))
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
