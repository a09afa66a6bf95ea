"""Job specs that several tests start from."""

from __future__ import annotations

import copy
from typing import Any

import yaml

SHORT_A = """\
job_id: pm-engine-bearing-v1
architecture: "LSTM"
version: "1.0.0"
input_schema: "01-ARCHITECTURE/DATA_CONTRACTS/TELEMETRY_SCHEMA.yaml#engine_vibration"
output_schema: "binary_classification"
algorithm: "FedAvg"
hyperparameters:
  learning_rate: 0.001
  optimizer: "Adam"
local_epochs: 5
batch_size: 32
schedule: "weekly"
client_selection: "random"
min_clients: 10
max_clients: 50
differential_privacy: true
epsilon: 1.0
delta: 1e-5
secure_aggregation: false
"""

SHORT_B = """\
job_id: ad-sensor-drift-v1
architecture: "Autoencoder"
output_schema: "reconstruction_error"
algorithm: "FedProx"
hyperparameters: {learning_rate: 0.0005, optimizer: "SGD", mu: 0.01}
local_epochs: 10
batch_size: 64
schedule: "weekly"
client_selection: "importance_sampling"
min_clients: 15
max_clients: 75
differential_privacy: true
epsilon: 2.0
delta: 1e-5
secure_aggregation: true
"""

_LONG: dict[str, Any] = {
    "job_metadata": {
        "job_id": "fl-test",
        "name": "Test",
        "description": "A test",
        "owner": "me",
        "contact": "me@example.org",
        "created_at": "2026-01-01T00:00:00Z",
        "status": "draft",
        "priority": "low",
    },
    "model_config": {
        "architecture": "MLP",
        "framework": "PyTorch",
        "version": "1.0.0",
        "input_schema": {"signals": ["a", "b"], "window_size": 10, "stride": 5, "sampling_rate": 50},
        "output_schema": {"type": "binary_classification", "labels": [0, 1], "threshold": 0.5},
        "model_hyperparameters": {"input_dim": 2, "hidden_dims": [8, 4], "dropout": 0.1},
    },
    "training_config": {
        "algorithm": "FedAvg",
        "hyperparameters": {
            "learning_rate": 0.001,
            "optimizer": "Adam",
            "optimizer_kwargs": {"beta1": 0.9},
            "class_weights": [1, 3.0],
        },
        "local_epochs": 2,
        "batch_size": 16,
        "global_training": {"num_rounds": 3},
    },
    "orchestration_config": {
        "schedule": {"type": "weekly", "launch_day": "Sunday", "launch_time": "02:00 UTC"},
        "client_selection": {"algorithm": "random"},
        "min_clients": 2,
        "max_clients": 4,
        "aggregation": {"weights": "num_samples", "timeout": 30, "min_quorum": 2},
    },
    "privacy_config": {"differential_privacy": {"enabled": False}, "secure_aggregation": {"enabled": False}},
    "validation_config": {"metrics": [{"name": "auc", "target": 0.9}], "thresholds": {"auc": {"min": 0.8}}},
}


def long_job() -> dict[str, Any]:
    """A job in the canonical form."""
    return copy.deepcopy(_LONG)


def short_job(text: str = SHORT_A) -> dict[str, Any]:
    """A short job as plain data."""
    data: dict[str, Any] = yaml.safe_load(text)
    if "delta" in data:
        data["delta"] = float(data["delta"])
    return data


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a job with one value set (a dotted path), or removed if the value is ``...``."""
    data = copy.deepcopy(data)
    node = data
    *parents, last = path.split(".")
    for step in parents:
        node = node.setdefault(step, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


CONTRACT: dict[str, Any] = {
    "contract_metadata": {
        "contract_id": "imu",
        "version": "1.0.0",
        "status": "active",
        "description": "d",
        "owner": "o",
        "created_date": "2026-01-01",
    },
    "schema": {
        "format": "parquet",
        "signals": [{"name": "a", "unit": "m"}, {"name": "b", "unit": "m"}],
        "signal_groups": {"both": ["a", "b"]},
    },
}
