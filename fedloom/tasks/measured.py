"""From the clients' figures of a model to figures of the fleet: what "aggregate" does in an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from fedloom.tasks.aggregation.record import outputs_of
from fedloom.tasks.losses import LOST_SHARD
from fedloom.tasks.metrics import held_out
from fedloom.tasks.model_store import model_key
from fedloom.tasks.pooled import pooled_metrics
from fedloom.tasks.recipe import MeasuringRecipe
from fedloom.tasks.select import cohort_shards
from fedloom.tasks.step import Place, StepResult

Figures = Mapping[str, Mapping[str, Any]]


def combine_figures(place: Place) -> StepResult:
    """Combine what the clients measured; the model stays as it is.

    The outputs are those of an aggregation of updates, with the metrics beside them: combined as the job says, and
    pooled, as if all windows lay in one place, where counts that add up give that exactly. Below the quorum there are
    metrics all the same, and the gate fails.

    Raises:
        ConfigurationError: when a shard has neither a result nor a record of its loss.
    """
    run, rules = place.run, place.run.recipe.measuring
    assert rules is not None, "only an evaluation has figures"
    digest = place.result("distribute")["outputs"]["model_digest"]
    figures, dropouts = _gathered(place)
    values, undefined = combined(figures, rules, run.recipe.aggregation.weights)
    own, names = [figures[client] for client in sorted(figures)], [name for name, _ in rules.combine]
    weighted = bool(run.recipe.training.class_weights)  # then a loss is no mean over windows
    pooled = pooled_metrics(own, [n for n in names if n != "loss" or not weighted], run.recipe.model.output)
    tables = {
        "clients": run.store.write_json(place.key("clients.json"), figures),
        "groups": run.store.write_json(place.key("groups.json"), _groups(place, figures, rules)),
        "pooled": run.store.write_json(place.key("pooled.json"), pooled),
    }
    return StepResult(
        {
            "model_digest": digest,
            "participants": len(figures),
            "cohort": sum(len(clients) for clients in cohort_shards(place)),
            "quorum": run.recipe.aggregation.quorum,
            "quorum_met": len(figures) >= run.recipe.aggregation.quorum,
            "dropouts": dropouts,
            "samples": sum(own["windows"] for own in figures.values()),
            "train_loss": None,
            "update_norm": None,
            "bytes_up": sum(len(json.dumps(own)) for own in figures.values()),
            "aborted": None,
            "withheld": None,
            "epsilon": None,
            "session": None,
            "clip": None,
            "next_clip": None,
            **outputs_of(None),
            "metrics": values,
            "undefined": undefined,
            "pooled": pooled["metrics"],
            "measured_by": {name: sum(name in own["metrics"] for own in figures.values()) for name in names},
            "finite": all(own["finite"] for own in figures.values()),
        },
        {"model": run.store.stat(model_key(digest)), **tables},
    )


def combined(figures: Figures, rules: MeasuringRecipe, weights: str) -> tuple[dict[str, float], dict[str, str]]:
    """The clients' values as one each, and why others have none; a client without a value does not count in it.

    Args:
        figures: By client, what it measured.
        rules: How each metric is combined.
        weights: Of a weighted average: "num_samples" (a client's windows) or "uniform".
    """
    values: dict[str, float] = {}
    undefined: dict[str, str] = {}
    for name, how in rules.combine:
        have = [figures[client] for client in sorted(figures) if name in figures[client]["metrics"]]
        if have:
            own = [float(each["metrics"][name]) for each in have]
            says = [float(each["windows"]) if weights == "num_samples" else 1.0 for each in have]
            values[name] = _combine(how, own, says)
            continue
        reasons = [figures[client]["undefined"].get(name) for client in sorted(figures)]
        undefined[name] = next((f"at no client: {reason}" for reason in reasons if reason), "no client measured it")
    return values, undefined


def _combine(how: str, values: list[float], weights: list[float]) -> float:
    if how == "weighted_average":
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
    if how == "average":
        return sum(values) / len(values)
    if how == "median":
        return float(median(values))
    return min(values) if how == "min" else max(values)


def _gathered(place: Place) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """What the clients of all shards measured, and who gave nothing."""
    figures: dict[str, dict[str, Any]] = {}
    dropouts: list[dict[str, str]] = []
    for shard, clients in enumerate(cohort_shards(place)):
        result = place.result("measure", shard)
        if "lost" in result:
            reason = f"{LOST_SHARD}: {result['lost']}"
            dropouts += [{"client": client, "reason": reason} for client in clients]
            continue
        dropouts += result["outputs"]["dropouts"]
        figures |= json.loads(place.file("measure", "clients", shard))
    return figures, dropouts


def _groups(place: Place, figures: Figures, rules: MeasuringRecipe) -> list[dict[str, Any]]:
    """The metrics of each group of clients: by fleet column and its value, in sorted order."""
    fleet, found = place.run.fleet, []
    for column in rules.columns:
        value_of = dict(zip(fleet.clients, fleet.attributes[column], strict=True))
        members: dict[str, list[str]] = {}
        for client in sorted(figures):
            value = value_of[client]
            members.setdefault("unknown" if value is None else str(value), []).append(client)
        for value, clients in sorted(members.items()):
            own = {client: figures[client] for client in clients}
            values, undefined = combined(own, rules, place.run.recipe.aggregation.weights)
            windows = sum(each["windows"] for each in own.values())
            found.append(
                {
                    "column": column,
                    "value": value,
                    "clients": len(clients),
                    "windows": windows,
                    "metrics": values,
                    "undefined": undefined,
                }
            )
    return found


def beside_clients(place: Place, measured: StepResult) -> StepResult:
    """The result of "evaluate": in an evaluation the plain names are the clients' values, the holdout's have a prefix.

    In the other kinds of job nobody but the holdout has measured anything, and its result stays as it is.
    """
    if place.run.recipe.measuring is None:
        return measured
    own, clients = measured.outputs, place.result("aggregate")["outputs"]
    return replace(
        measured,
        outputs={
            **own,
            "metrics": clients["metrics"] | {held_out(name): value for name, value in own["metrics"].items()},
            "undefined": clients["undefined"] | {held_out(name): why for name, why in own["undefined"].items()},
            "finite": own["finite"] and clients["finite"],
        },
    )
