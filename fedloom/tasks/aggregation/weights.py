"""How much each update counts in the mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedloom.tasks.aggregation.geometry import Matrix, cosines, median
from fedloom.tasks.aggregation.updates import Update
from fedloom.tasks.recipe import AggregationRecipe

_LEAST_LOSS = 0.01
"""Losses below this share of the median count as that, so that no weight is beyond all measure."""

_NOTHING = 1e-15
"""A share below this is none: what it would have to be multiplied by to meet a bound is no number."""


def weigh(recipe: AggregationRecipe, updates: Sequence[Update]) -> Matrix:
    """The weight of each update, shape [updates], not negative; with bounds on shares, within them.

    num_samples counts windows, uniform counts clients, custom takes `Update.weight`. loss_based is 1 / loss.
    contribution is the cosine between the update and the coordinate-wise median of all, or 0 where it points away:
    the trust of Cao et al. 2021, "FLTrust", with the median in the place of an update of the server's own.
    """
    if recipe.weights == "num_samples":
        weights = np.array([float(update.samples) for update in updates])
    elif recipe.weights == "custom":
        weights = np.array([update.weight for update in updates], dtype=np.float64)
    elif recipe.weights == "loss_based":
        weights = _by_loss(updates)
    elif recipe.weights == "contribution":
        weights = np.maximum(cosines(updates, median(updates)), 0.0)
    else:
        weights = np.ones(len(updates))
    total = float(weights.sum())
    if total > 0 and (recipe.share_min > 0 or recipe.share_max < 1):
        return bounded(weights / total, recipe.share_min, recipe.share_max) * total
    return weights


def bounded(shares: Matrix, low: float, high: float) -> Matrix:
    """Shares within bounds that still sum to 1, and keep their proportions where no bound keeps them from it.

    They are clip(λ · share, low, high) for the one λ with which they sum to 1. The sum grows with λ and is straight
    between the values of λ where a share meets a bound, so λ is found there and not approached.

    Args:
        shares: Shape [updates], not negative, summing to 1.
        low: Smallest share; updates · low must not exceed 1.
        high: Largest share; updates · high must be at least 1.

    Raises:
        ValueError: when no shares are within these bounds.
    """
    count = len(shares)
    shares = np.where(shares < _NOTHING, 0.0, shares)
    if count * low > 1 + 1e-12 or count * high < 1 - 1e-12:
        raise ValueError(f"{count} shares of {low:g} to {high:g} do not sum to 1")
    positive = shares[shares > 0]
    if count * high <= 1 or count * low >= 1:
        return np.full(count, 1.0 / count)
    turns = np.unique(np.concatenate([low / positive, high / positive]))
    sums = np.array([np.clip(turn * shares, low, high).sum() for turn in turns])
    if sums[-1] < 1:  # those with weight are at the upper bound already: the rest is for those without
        found = np.asarray(np.clip(turns[-1] * shares, low, high))
        rest = shares <= 0
        found[rest] += (1.0 - found.sum()) / rest.sum()
        return found
    after = int(np.searchsorted(sums, 1.0))
    if after == 0:
        return np.asarray(np.clip(turns[0] * shares, low, high))
    below, above = sums[after - 1], sums[after]
    part = (1.0 - below) / (above - below)
    factor = turns[after - 1] + part * (turns[after] - turns[after - 1])
    return np.asarray(np.clip(factor * shares, low, high))


def _by_loss(updates: Sequence[Update]) -> Matrix:
    losses = np.array([np.inf if update.loss is None else max(update.loss, 0.0) for update in updates])
    known = losses[np.isfinite(losses)]
    if not len(known):
        return np.zeros(len(updates))
    least = max(_LEAST_LOSS * float(np.median(known)), 1e-12)
    return np.asarray(1.0 / np.maximum(losses, least))
