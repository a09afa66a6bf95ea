"""From the updates of single clients to one update, with word on every update that did not count as it came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fedloom.tasks.aggregation.bounds import too_few
from fedloom.tasks.aggregation.quality import Remark, examine
from fedloom.tasks.aggregation.robust import apply_rule
from fedloom.tasks.aggregation.updates import Update
from fedloom.tasks.aggregation.weights import weigh
from fedloom.tasks.models import State
from fedloom.tasks.recipe import AggregationRecipe


@dataclass(frozen=True)
class Combined:
    """What became of some updates.

    Attributes:
        mean: The one update, float64; empty when there is none.
        weight: Sum of the weights; where a rule takes no weights, the number of updates.
        participants: Updates that counted.
        samples: Windows that they were trained on.
        loss: Weighted mean of their losses; None where one is not known.
        weights: Share of each client in the mean; empty for rules that choose coordinates and not clients.
        excluded: Updates that did not count, with the check that they failed and the reason.
        flagged: Updates that counted and drew attention.
        clipped: Updates that counted after they were shortened.
        withheld: Why there is no mean; None when there is one.
    """

    mean: State
    weight: float
    participants: int
    samples: int
    loss: float | None
    weights: dict[str, float] = field(default_factory=dict)
    excluded: tuple[Remark, ...] = ()
    flagged: tuple[Remark, ...] = ()
    clipped: tuple[Remark, ...] = ()
    withheld: str | None = None


def combine(recipe: AggregationRecipe, updates: Sequence[Update], now: int | None = None) -> Combined:
    """Check the updates, weigh them, and make one of them.

    The outcome does not depend on the order in which they are given. Updates that are not finite, of another layout
    than most, too late or that fail a check do not count; whatever is left is judged by the rule's own bounds.
    Nothing that an update holds raises an error.

    Args:
        recipe: The rule, the weights and the checks. The quorum is the caller's to judge.
        updates: All of one model; a client may have given several, for different rounds.
        now: The current round; the latest of the updates' rounds if not given.
    """
    ordered = sorted(updates, key=lambda update: (update.client, update.round))
    now = max((update.round for update in ordered), default=0) if now is None else now
    kept, remarks = examine(recipe, ordered, now)
    excluded, flagged, clipped = (
        tuple(r for r in remarks if r.action == action) for action in ("exclude", "flag", "clip")
    )
    made = _mean(recipe, kept)
    if not kept and excluded:
        common = Counter(remark.check for remark in excluded).most_common(1)[0][0]
        made = replace(made, withheld=f"all {len(excluded)} updates were excluded, most by the check {common}")
    return replace(made, excluded=excluded, flagged=flagged, clipped=clipped)


def _mean(recipe: AggregationRecipe, kept: list[Update]) -> Combined:
    samples = sum(update.samples for update in kept)
    nothing = Combined({}, 0.0, len(kept), samples, None)
    if not kept:
        return replace(nothing, withheld="no update arrived")
    if recipe.robust is not None:
        objection = too_few(recipe.robust, len(kept))
        if objection is not None:
            return replace(nothing, withheld=objection)
        mean, shares = apply_rule(recipe.robust, kept)
        weights = np.ones(len(kept))
    else:
        try:
            weights = weigh(recipe, kept)
        except ValueError as error:
            return replace(nothing, withheld=str(error))
        total = float(weights.sum())
        if not total > 0:
            return replace(nothing, withheld=f"no update has a weight by {recipe.weights}")
        mean = _weighted(kept, weights, total if recipe.normalize else 1.0)
        shares = _by_client(kept, weights / (total if recipe.normalize else 1.0))
    return replace(nothing, mean=mean, weight=float(weights.sum()), loss=_loss(kept, weights), weights=shares)


def _weighted(updates: list[Update], weights: np.ndarray[tuple[int], np.dtype[np.float64]], by: float) -> State:
    """Σ weight · delta / by, in the order of the updates."""
    total = {name: torch.zeros_like(like, dtype=torch.float64) for name, like in sorted(updates[0].delta.items())}
    for update, weight in zip(updates, weights, strict=True):
        for name, tensor in total.items():
            tensor += update.delta[name].to(torch.float64) * float(weight)
    return {name: tensor / by for name, tensor in total.items()}


def _by_client(updates: list[Update], shares: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for update, share in zip(updates, shares, strict=True):
        found[update.client] = found.get(update.client, 0.0) + float(share)
    return found


def _loss(updates: list[Update], weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    if any(update.loss is None for update in updates):
        return None
    return float(sum(w * (u.loss or 0.0) for u, w in zip(updates, weights, strict=True)) / weights.sum())
