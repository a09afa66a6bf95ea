"""The rounds of a run so far: ``round.jsonl``, the source of every report, and early stopping on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fedloom.specs.canonical import canonical_json
from fedloom.tasks.metrics import HIGHER_IS_BETTER
from fedloom.tasks.recipe import EvaluationRecipe
from fedloom.tasks.step import Place
from fedloom.tasks.store import Stored

_FIELDS = frozenset(
    {"round", "cohort", "participants", "dropouts", "train_loss", "epsilon", "model_digest", "metrics", "undefined"}
    | {"skipped", "quorum_met"}
)


@dataclass(frozen=True)
class Progress:
    """One line a round, and why the run should end after this one (None: it goes on)."""

    lines: tuple[dict[str, Any], ...]
    stop_reason: str | None


def progress(place: Place) -> Progress:
    """The lines of all rounds up to this one.

    A line is made from the results of its round's steps. The file saves reading those of earlier rounds again,
    and may lack lines: another process on the same run may have written it anew in between.
    """
    lines = (*_earlier(place), round_line(place))
    recipe = place.run.recipe
    reason = early_stop(recipe.evaluation, [line["metrics"] for line in lines if line["skipped"] is None])
    if reason is None and place.round >= recipe.rounds:
        reason = "the last round is done"
    return Progress(lines, reason)


def early_stop(settings: EvaluationRecipe, metrics: list[dict[str, float]]) -> str | None:
    """Why training should stop after the last of these rounds, or None.

    Args:
        settings: The job's early stopping; a round in which its metric is undefined counts as no improvement.
        metrics: Metrics of each round, in order.
    """
    name = settings.stop_metric
    if name is None or not metrics:
        return None
    sign = 1.0 if HIGHER_IS_BETTER[name] else -1.0
    values = [sign * line[name] if name in line else float("-inf") for line in metrics]
    if settings.stop_value is not None and values[-1] >= sign * settings.stop_value:
        return f"early stopping: {name} {metrics[-1][name]:.4f} has reached {settings.stop_value:g}"
    best = 0
    for i, value in enumerate(values):
        if value - values[best] > settings.min_delta or values[best] == float("-inf") < value:
            best = i
    if settings.patience is not None and len(values) - 1 - best >= settings.patience:
        return f"early stopping: no better {name} in {settings.patience} rounds"
    return None


def write_rounds(place: Place, now: Progress) -> Stored:
    """Write the file anew with this round's line, in one atomic write."""
    data = b"".join(canonical_json(line) + b"\n" for line in now.lines)
    return place.run.store.write(place.run.key("round.jsonl"), data)


def read_rounds(data: bytes) -> list[dict[str, Any]]:
    """The lines of a ``round.jsonl``."""
    return [json.loads(line) for line in data.splitlines()]


def _earlier(place: Place) -> tuple[dict[str, Any], ...]:
    known = {line["round"]: line for line in _file(place)}
    return tuple(known.get(r) or round_line(Place(place.run, r)) for r in range(1, place.round))


def _file(place: Place) -> list[dict[str, Any]]:
    key = place.run.key("round.jsonl")
    if place.round == 1 or not place.run.store.exists(key):
        return []
    try:
        lines = read_rounds(place.run.store.read(key))
    except ValueError:
        return []
    return [line for line in lines if isinstance(line, dict) and line.keys() >= _FIELDS]


def round_line(place: Place) -> dict[str, Any]:
    """What happened in a round, from the results of its steps."""
    select, distributed = place.result("select")["outputs"], place.find("distribute")
    sent = {"learning_rate": None, "bytes_down": 0} if distributed is None else distributed["outputs"]
    took, measured = place.result("aggregate")["outputs"], place.result("evaluate")["outputs"]
    return {
        "round": place.round,
        "eligible": select["eligible"],
        "low_eligibility": select["low_eligibility"],
        "skipped": select["skipped"],
        "cohort": took["cohort"],
        "participants": took["participants"],
        "quorum_met": took["quorum_met"],
        "dropouts": took["dropouts"],
        **took["remarks"],
        "samples": took["samples"],
        "train_loss": took["train_loss"],
        "update_norm": took["update_norm"],
        "epsilon": took["epsilon"],
        "clip": took["clip"],
        "learning_rate": sent["learning_rate"],
        "model_digest": took["model_digest"],
        "metrics": measured["metrics"],
        "undefined": measured["undefined"],
        "bytes_down": sent["bytes_down"],
        "bytes_up": took["bytes_up"],
    }
