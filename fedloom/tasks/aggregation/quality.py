"""Checks that each update passes before it counts.

The checks run in the order of the spec, each on the updates that those before it left, so that a median is not that of
updates which were excluded already.

gradient_norm          L2 norm of the update over all its tensors
parameter_distance     distance to the coordinate-wise median of the updates: l2, l1, linf, or cosine (1 - cosine, so
                       0 to 2)
loss_improvement       loss of the received model less the loss of the client's last epoch, on its own windows; the
                       action is taken below the limit, and where the client did not say
data_poisoning_score   how far an update stands out, 0 to 1: z² / (z² + 3.5²). z is the larger of two robust z-scores,
                       the distance to the median over 1.4826 times the median distance to it: of the update's norm,
                       and of its cosine to the coordinate-wise median, where only a low one counts. 3.5 is the usual
                       limit of such a score (Iglewicz and Hoaglin 1993, "How to detect and handle outliers"), and
                       gives 0.5. A spread below 5 % (of the median norm; of 1 for the cosine) counts as 5 %.

"clip" scales an update (parameter_distance: its difference from the median) down to the limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedloom.tasks.aggregation.geometry import Matrix, cosines, lengths, median
from fedloom.tasks.aggregation.updates import Update
from fedloom.tasks.models import State
from fedloom.tasks.recipe import AggregationRecipe, CheckRecipe, StalenessRecipe

_LIMIT_OF_Z = 3.5
_LEAST_SPREAD = 0.05
_MOST = 1e100
"""Weights and losses beyond this have no finite sums."""


@dataclass(frozen=True)
class Remark:
    """One thing about one update.

    Attributes:
        client: Who gave it.
        check: What was checked.
        reason: What was found, for a reader.
        action: What was done: "exclude", "clip" or "flag".
    """

    client: str
    check: str
    reason: str
    action: str


def examine(recipe: AggregationRecipe, updates: Sequence[Update], now: int) -> tuple[list[Update], list[Remark]]:
    """The updates that count, some of them shortened, and a remark on each that failed a check.

    Whatever the recipe asks, updates that are not finite or whose tensors are not those of most are excluded.
    """
    remarks: list[Remark] = []
    kept = _whole(updates, remarks)
    if recipe.staleness is not None:
        kept = _fresh(recipe.staleness, kept, now, remarks)
    for check in recipe.checks:
        if kept:
            kept = _checked(check, kept, remarks)
    return kept, remarks


def _whole(updates: Sequence[Update], remarks: list[Remark]) -> list[Update]:
    layouts = [tuple((name, tuple(t.shape)) for name, t in sorted(update.delta.items())) for update in updates]
    usual = Counter(layouts).most_common(1)[0][0] if layouts else ()
    kept = []
    for update, layout in zip(updates, layouts, strict=True):
        bad = sum(int((~torch.isfinite(tensor.to(torch.float32))).sum()) for tensor in update.delta.values())
        figures = (update.weight, update.loss or 0.0)
        if layout != usual or not layout:
            remarks.append(Remark(update.client, "layout", "its tensors are not those of the others", "exclude"))
        elif bad:
            remarks.append(Remark(update.client, "finite", f"{bad} of its numbers are not finite", "exclude"))
        elif update.samples < 0 or not all(abs(n) < _MOST for n in figures) or update.weight < 0:
            remarks.append(Remark(update.client, "finite", "its weight, samples or loss is no such number", "exclude"))
        else:
            kept.append(update)
    return kept


def _fresh(rule: StalenessRecipe, updates: list[Update], now: int, remarks: list[Remark]) -> list[Update]:
    kept = []
    for update in updates:
        late = now - update.round
        if late > rule.rounds:
            reason = f"it is {late} rounds late, {rule.rounds} allowed"
            remarks.append(Remark(update.client, "staleness", reason, rule.action))
        if late <= rule.rounds or rule.action != "exclude":
            kept.append(update)
    return kept


def _checked(check: CheckRecipe, updates: list[Update], remarks: list[Remark]) -> list[Update]:
    centre = median(updates) if check.name in ("parameter_distance", "data_poisoning_score") else None
    values = _measure(check, updates, centre)
    kept = []
    for update, value in zip(updates, values, strict=True):
        over = not value >= check.limit if check.name == "loss_improvement" else bool(value > check.limit)
        if over:
            remarks.append(Remark(update.client, check.name, _reason(check, value), check.action))
        if over and check.action == "exclude":
            continue
        if over and check.action == "clip":
            update = _shortened(update, check.limit / value, centre)
        kept.append(update)
    return kept


def _measure(check: CheckRecipe, updates: list[Update], centre: State | None) -> Matrix:
    if check.name == "gradient_norm":
        return lengths(updates)
    if check.name == "loss_improvement":
        return np.array([_improvement(update) for update in updates])
    assert centre is not None
    if check.name == "data_poisoning_score":
        return poisoning_scores(updates, centre)
    if check.metric == "cosine":
        return 1.0 - cosines(updates, centre)
    return lengths(updates, centre, check.metric)


def poisoning_scores(updates: Sequence[Update], centre: State) -> Matrix:
    """How far each update stands out, 0 to 1, shape [updates]; `centre` is their coordinate-wise median."""
    norms, angles = lengths(updates), cosines(updates, centre)
    usual = float(np.median(norms))
    far = np.abs(_standing(norms, _LEAST_SPREAD * usual))
    away = np.maximum(-_standing(angles, _LEAST_SPREAD), 0.0)
    z = np.minimum(np.maximum(far, away), 1e100)
    return np.asarray(z**2 / (z**2 + _LIMIT_OF_Z**2))


def _standing(values: Matrix, least: float) -> Matrix:
    """Robust z-scores; a spread below `least` counts as that."""
    middle = np.median(values)
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), least, 1e-300)
    return np.asarray((values - middle) / spread)


def _improvement(update: Update) -> float:
    if update.loss is None or update.loss_before is None:
        return math.nan
    return update.loss_before - update.loss


def _reason(check: CheckRecipe, value: float) -> str:
    what = f"{check.metric} distance to the median" if check.name == "parameter_distance" else check.name
    if check.name == "loss_improvement":
        found = "is unknown" if math.isnan(value) else f"is {value:.4g}"
        return f"{what} {found}, at least {check.limit:g} wanted"
    return f"{what} is {value:.4g}, at most {check.limit:g} allowed"


def _shortened(update: Update, factor: float, centre: State | None) -> Update:
    if centre is None:
        delta = {name: (tensor.double() * factor).to(tensor.dtype) for name, tensor in update.delta.items()}
    else:
        delta = {
            name: (centre[name] + (tensor.double() - centre[name]) * factor).to(tensor.dtype)
            for name, tensor in update.delta.items()
        }
    return replace(update, delta=delta)
