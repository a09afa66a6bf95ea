"""The short forms of a job, as tables: which key stands for which place of the canonical form.

The canonical form is documented by ``job.Job``. A flat job has no sections, its keys are those
of FLAT. The same keys may stand one level too high or too low inside a section (MOVES, SPREADS),
and a single value may stand for a section (EXPANSIONS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fedloom.specs.trails import Trail

REQUIRED_SECTIONS = ("job_metadata", "model_config", "training_config", "orchestration_config", "privacy_config")
SECTIONS = (
    *REQUIRED_SECTIONS,
    "aggregation_config",
    "deployment_config",
    "validation_config",
    "compliance_config",
    "output",
    "versioning",
    "monitoring_config",
    "resource_estimation",
    "tags",
    "related_documents",
    "change_history",
)

_DP = ("privacy_config", "differential_privacy")
_INPUT = ("model_config", "input_schema")
_OUTPUT = ("model_config", "output_schema")
_ROUNDS = ("training_config", "global_training")
_SCHEDULE = ("orchestration_config", "schedule")
_DP_KEYS = ("mechanism", "epsilon", "delta", "noise_multiplier", "max_grad_norm")


def _below(section: Trail, *keys: str) -> dict[str, Trail]:
    return {key: (*section, key) for key in keys}


FLAT: dict[str, Trail] = {
    **_below(
        ("job_metadata",),
        "job_id",
        "kind",
        "name",
        "description",
        "owner",
        "contact",
        "created_at",
        "updated_at",
        "status",
        "priority",
    ),
    **_below(
        ("model_config",),
        "architecture",
        "framework",
        "version",
        "custom_class",
        "model_source",
        "input_schema",
        "output_schema",
        "model_hyperparameters",
    ),
    **_below(_INPUT, "signals", "signal_group", "window_size", "stride", "sampling_rate"),
    **_below(_OUTPUT, "labels", "threshold", "label_column"),
    **_below(
        ("training_config",),
        "algorithm",
        "hyperparameters",
        "local_epochs",
        "batch_size",
        "shuffle",
        "seed",
    ),
    **_below(_ROUNDS, "num_rounds", "early_stopping"),
    **_below(
        ("orchestration_config",),
        "schedule",
        "client_selection",
        "min_clients",
        "max_clients",
        "shard_size",
        "aggregation",
        "resources",
    ),
    **_below(_SCHEDULE, "launch_day", "launch_time", "cron_expression"),
    "target_clients": ("orchestration_config", "client_selection", "target_clients"),
    "min_quorum": ("orchestration_config", "aggregation", "min_quorum"),
    **_below(("privacy_config",), "differential_privacy", "secure_aggregation"),
    **_below(_DP, *_DP_KEYS),
    "protocol": ("privacy_config", "secure_aggregation", "protocol"),
    **_below(("deployment_config",), "rollout_strategy", "canary_clients"),
    **_below(("validation_config",), "holdout_dataset", "metrics", "thresholds"),
    "holdout": ("validation_config", "holdout_dataset"),
    **_below(("compliance_config",), "certification_level", "audit_trail", "export_control"),
    "related_docs": ("related_documents",),
    "monitoring": ("monitoring_config",),
}
"""Key of a flat job to its place in the canonical form."""

ALSO_BESIDE_SECTIONS = frozenset({"related_docs", "monitoring"})
"""Keys of FLAT that are second names of sections: they do not make a job flat."""

MOVES: tuple[tuple[Trail, Trail], ...] = (
    *(
        ((("orchestration_config", "client_selection", key)), ("orchestration_config", key))
        for key in ("min_clients", "max_clients")
    ),
    *(((("training_config", key)), (*_ROUNDS, key)) for key in ("num_rounds", "early_stopping")),
    *(((("privacy_config", key)), (*_DP, key)) for key in _DP_KEYS),
    (("deployment_config", "canary_phase", "canary_clients"), ("deployment_config", "canary_clients")),
)
"""Keys that may stand in another place of the same section."""

SPREADS: tuple[tuple[Trail, dict[str, str]], ...] = (
    (("training_config", "local_training"), {}),
    (("compliance_config", "certification"), {"level": "certification_level", "scope": "certification_scope"}),
    (("compliance_config", "audit_trail"), {"enabled": "audit_trail"}),
    (("compliance_config", "export_control"), {"classification": "export_control"}),
)
"""Mappings whose keys belong one level higher, some under another name."""


def canonical_job_id(job_id: str) -> str:
    """The id with its prefix ``fl-``: what a job_id or job_ref means."""
    return job_id if job_id.startswith("fl-") else f"fl-{job_id}"


def _enabled(value: Any) -> Any:
    return {"enabled": value} if isinstance(value, bool) else value


def _named(key: str) -> Callable[[Any], Any]:
    return lambda value: {key: value} if isinstance(value, str) else value


def _input_schema(value: Any) -> Any:
    """'contract#group' is a contract and one of its signal groups."""
    schema = {"reference": value} if isinstance(value, str) else value
    if not isinstance(schema, dict) or "signal_group" in schema:
        return schema
    reference = schema.get("reference")
    if not isinstance(reference, str) or "#" not in reference:
        return schema
    path, _, anchor = reference.partition("#")
    return {**schema, "reference": path, "signal_group": anchor}


def _schedule(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if len(value.split()) >= 5 or value.startswith("@"):
        return {"type": "cron", "cron_expression": value}
    return {"type": value}


def _robust(value: Any) -> Any:
    return {"enabled": True, "method": value} if isinstance(value, str) else _enabled(value)


EXPANSIONS: dict[Trail, Callable[[Any], Any]] = {
    _INPUT: _input_schema,
    _OUTPUT: _named("type"),
    _SCHEDULE: _schedule,
    ("orchestration_config", "client_selection"): _named("algorithm"),
    _DP: _enabled,
    ("privacy_config", "secure_aggregation"): _enabled,
    ("aggregation_config", "differential_privacy"): _enabled,
    ("aggregation_config", "secure_aggregation"): _enabled,
    ("aggregation_config", "weighting"): _named("strategy"),
    ("aggregation_config", "byzantine_robust"): _robust,
    (*_ROUNDS, "early_stopping"): _enabled,
    ("validation_config", "holdout_dataset"): _named("source"),
}
"""Sections that a single value may stand for."""


_METRICS: Trail = ("validation_config", "metrics")
LISTS: dict[Trail, str] = {_METRICS: "name", ("related_documents",): "path"}
"""Lists whose items may be a single text, and the key that it stands for."""


def list_items(trail: Trail, value: Any) -> Iterator[tuple[Any, Trail]] | None:
    """The items of a list written in a short way, each with the place it comes from below ``trail``."""
    if trail == _METRICS and isinstance(value, dict):
        return (
            ({"name": name, **goal} if isinstance(goal, dict) else _metric(name, goal), (name,))
            for name, goal in value.items()
        )
    if isinstance(value, list):
        key = LISTS[trail]
        return (({key: item} if isinstance(item, str) else item, (index,)) for index, item in enumerate(value))
    return None


def _metric(name: str, target: Any) -> dict[str, Any]:
    return {"name": name} if target is None else {"name": name, "target": target}
