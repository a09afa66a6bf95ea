"""Every algorithm, optimiser, network and selection on the main example: how well it ends, and what it costs.

Run it with: python benchmarks/algorithms.py docs/algorithms.md. The example runs without privacy and masks, which would
hide the differences. One seed, two held-out people: what the table shows is that each works, not which is best.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from fedloom import FedJob
from fedloom.flows.result import RunResult
from fedloom.specs.bundle import EXAMPLES

EXAMPLE = EXAMPLES / "aircraft_accel_v1"
ROUNDS = 15
INTRODUCTION = f"""\
# Algorithms

Every algorithm, rule, optimiser, network and selection on the main example: the area under the ROC curve on its two
held-out people after {ROUNDS} rounds of two local epochs, and what a run cost, also in units of a first run of FedAvg.
The example runs without privacy and masks, which would hide the differences; clients train with SGD where nothing else
is said, and networks with Adam. One seed, few people: the tables show that each works, not which is best, and no
setting was tuned. The times are from two cores with other work beside, and vary by a third.

`python benchmarks/algorithms.py docs/algorithms.md` makes this page.
"""
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """One row: what of the job and of its selector is another; dotted paths, None removes."""

    title: str
    job: Changes = field(default_factory=dict)
    selector: Changes = field(default_factory=dict)


BASE: Changes = {
    "privacy_config": {"differential_privacy": {"enabled": False}, "secure_aggregation": {"enabled": False}},
    "training_config.hyperparameters.learning_rate": 0.1,
    "training_config.batch_size": 32,
    "training_config.local_epochs": 2,
    "training_config.global_training.num_rounds": ROUNDS,
}

ALGORITHM, HYPER = "training_config.algorithm", "training_config.hyperparameters"
ROBUST, MODEL = "aggregation_config.byzantine_robust", "model_config"
DRAW = "selection_algorithm.algorithm"


def robust(method: str, **settings: Any) -> Changes:
    """A job whose updates are combined by a robust rule."""
    return {f"{ROBUST}.enabled": True, f"{ROBUST}.method": method, **{f"{ROBUST}.{k}": v for k, v in settings.items()}}


def network(name: str, **settings: Any) -> Changes:
    """A job with another network; Adam, which needs no tuning to each."""
    return {
        f"{MODEL}.architecture": name,
        f"{MODEL}.model_hyperparameters": settings,
        f"{HYPER}.optimizer": "Adam",
        f"{HYPER}.learning_rate": 0.003,
    }


def drawn(name: str, **settings: Any) -> tuple[Changes, Changes]:
    """A job and its selector that draw clients in another way."""
    changes = {DRAW: name, "selection_algorithm.importance_metric": None}
    changes |= {f"selection_algorithm.{key}": value for key, value in settings.items()}
    return {"orchestration_config.client_selection.algorithm": name}, changes


class Pooled(nn.Module):
    """A network of a user's own: two convolutions, and the largest value of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(6, 16, 9), nn.ReLU(), nn.Conv1d(16, 32, 9), nn.ReLU())
        self.head = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One logit a window."""
        out: torch.Tensor = self.head(self.body(x.transpose(1, 2)).amax(dim=2))
        return out


def server(name: str, **settings: Any) -> Changes:
    """A job whose server takes steps of its own."""
    algorithm = name if name in ("FedAdam", "FedYogi") else "FedOpt"
    given = settings | ({} if algorithm == name else {"name": name})
    return {ALGORITHM: algorithm, f"{HYPER}.server_optimizer": given}


def optimiser(name: str, rate: float, **settings: Any) -> Changes:
    """A job whose clients train with another optimiser."""
    return {f"{HYPER}.optimizer": name, f"{HYPER}.learning_rate": rate, f"{HYPER}.optimizer_kwargs": settings}


CHECKS, WEIGHTS = "aggregation_config.quality_checks", "orchestration_config.aggregation.weights"
TABLES: Mapping[str, tuple[Variant, ...]] = {
    "Algorithms": (
        Variant("FedAvg"),
        Variant("FedProx, mu 0.01", {ALGORITHM: "FedProx", f"{HYPER}.mu": 0.01}),
        Variant("SCAFFOLD", {ALGORITHM: "SCAFFOLD"}),
        Variant("FedOpt with SGD and momentum (FedAvgM)", server("SGD", momentum=0.5)),
        Variant("FedOpt with AdaGrad (FedAdagrad)", server("AdaGrad", learning_rate=0.03)),
        Variant("FedAdam", server("FedAdam", learning_rate=0.01)),
        Variant("FedYogi", server("FedYogi", learning_rate=0.01)),
        Variant("FedAvg, cosine learning rate", {f"{HYPER}.lr_schedule": {"type": "cosine"}}),
    ),
    "Rules that combine updates": (
        Variant("weights num_samples", {WEIGHTS: "num_samples"}),
        Variant("weights uniform", {WEIGHTS: "uniform"}),
        Variant("weights loss_based", {WEIGHTS: None, "aggregation_config.weighting": {"strategy": "loss_based"}}),
        Variant("weights contribution", {WEIGHTS: None, "aggregation_config.weighting": {"strategy": "contribution"}}),
        Variant(
            "weights custom, by hours recorded",
            {WEIGHTS: "custom", "orchestration_config.aggregation.weight_column": "recording_hours"},
        ),
        Variant("median", robust("median")),
        Variant("trimmed mean, 10 %", robust("trimmed_mean", trimmed_mean_config={"trim_ratio": 0.1})),
        Variant("Krum", robust("krum")),
        Variant("Multi-Krum", robust("multi_krum")),
        Variant("Bulyan", robust("bulyan") | {"orchestration_config.aggregation.min_quorum": 8}),
        Variant(
            "mean, poisoning score above 0.8 excluded",
            {
                f"{CHECKS}.enabled": True,
                f"{CHECKS}.checks": [{"name": "data_poisoning_score", "threshold": 0.8, "action": "exclude"}],
            },
        ),
    ),
    "Optimisers of the clients": (
        Variant("SGD", optimiser("SGD", 0.1)),
        Variant("SGD, Nesterov momentum 0.9", optimiser("SGD", 0.02, momentum=0.9, nesterov=True)),
        Variant("Adam", optimiser("Adam", 0.003)),
        Variant("AdaGrad", optimiser("AdaGrad", 0.01)),
        Variant("RMSprop", optimiser("RMSprop", 0.001)),
    ),
    "Networks": (
        Variant("MLP", network("MLP", hidden_dims=[64, 32])),
        Variant("CNN", network("CNN", num_channels=[16, 32])),
        Variant("ResNet", network("ResNet", num_channels=[16, 32])),
        Variant("LSTM", network("LSTM", hidden_dim=32)),
        Variant("GRU", network("GRU", hidden_dim=32)),
        Variant("Transformer", network("Transformer", hidden_dim=32, num_layers=1)),
        Variant("Custom (a class of the script)", network("Custom") | {f"{MODEL}.custom_class": "algorithms:Pooled"}),
        Variant(
            "Autoencoder (learns without labels)",
            network("Autoencoder", latent_dim=32)
            | {
                f"{MODEL}.output_schema": {"type": "reconstruction_error"},
                f"{HYPER}.loss_function": "MSELoss",
                "validation_config.metrics": [{"name": "auc"}],
                "validation_config.thresholds": None,
            },
        ),
    ),
    "Selections": (
        Variant("random", *drawn("random")),
        Variant(
            "weighted_random by wrist", *drawn("weighted_random", sampling_weights={"side": {"left": 2, "right": 1}})
        ),
        Variant("importance_sampling (quantity, quality, diversity)", *drawn("importance_sampling")),
        Variant(
            "importance_sampling by data volume",
            selector={"selection_algorithm.importance_metric": "data_volume"},
        ),
        Variant("active_learning", *drawn("active_learning", exploration_rate=0.1)),
        Variant("poisson", *drawn("poisson")),
    ),
}


def main() -> None:
    """Run all rows and write the page."""
    page = [INTRODUCTION]
    with tempfile.TemporaryDirectory() as store:
        run(Variant("warm-up"), store)  # imports, and data read once
        base, _ = run(Variant("FedAvg"), f"{store}/base")
        for heading, variants in TABLES.items():
            page += [f"## {heading}", "", "| | AUC | clients a round | CPU time | × FedAvg |", "|---|---|---|---|---|"]
            for number, variant in enumerate(variants):
                seconds, result = run(variant, f"{store}/{heading}/{number}")
                page.append(row(variant.title, result, seconds, base))
                print(page[-1], flush=True)
            page.append("")
    Path(sys.argv[1]).write_text("\n".join(page))


def run(variant: Variant, store: str) -> tuple[float, RunResult]:
    """CPU seconds of a run in this process, and what it ended with."""
    specs = {path.stem: yaml.safe_load(path.read_text()) for path in EXAMPLE.glob("*.yaml")}
    for changes in (BASE, variant.job):
        change(specs["job"], changes)
    change(specs["selector"], variant.selector)
    used = {kind: specs[kind] for kind in ("selector", "contract", "fleet")}
    job = FedJob(specs["job"], folder=EXAMPLE, **used)
    started = time.process_time()
    result = job.simulate(store)
    return time.process_time() - started, result


def change(spec: dict[str, Any], changes: Changes) -> None:
    """Set values at dotted paths; None removes one."""
    for path, value in changes.items():
        *above, last = path.split(".")
        node = spec
        for key in above:
            node = node.setdefault(key, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value


def row(title: str, result: RunResult, seconds: float, base: float) -> str:
    """One line of a table."""
    auc = f"{result.metrics['auc']:.3f}" if "auc" in result.metrics else "–"
    clients = result.participation["updates"] / max(result.rounds, 1)
    return f"| {title} | {auc} | {clients:.1f} | {seconds:.1f} s | {seconds / base:.2f} |"


if __name__ == "__main__":
    main()
