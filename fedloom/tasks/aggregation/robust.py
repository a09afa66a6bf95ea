"""Rules that withstand hostile updates. Weights do not count in them: a hostile client would give itself a large one.

n updates, of which at most f are hostile in any way they like, also knowing all others:

median, trimmed mean   of every coordinate (Yin et al. 2018, "Byzantine-robust distributed learning: towards optimal
                       statistical rates")
Krum, Multi-Krum       the update that is nearest to its n - f - 2 nearest others; the mean of the n - f - 2 best such
                       (Blanchard et al. 2017, "Machine learning with adversaries: Byzantine tolerant gradient
                       descent"); n >= 2f + 3
Bulyan                 n - 2f updates chosen by Krum one after the other, and in every coordinate the mean of the n - 4f
                       of them nearest to their median (El Mhamdi et al. 2018, "The hidden vulnerability of distributed
                       learning in Byzantium"); n >= 4f + 3
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedloom.tasks.aggregation.bounds import assumed_hostile, cut
from fedloom.tasks.aggregation.geometry import Matrix, by_coordinate, median, squared_distances
from fedloom.tasks.aggregation.updates import Update
from fedloom.tasks.models import State
from fedloom.tasks.recipe import RobustRecipe


def apply_rule(rule: RobustRecipe, updates: Sequence[Update]) -> tuple[State, dict[str, float]]:
    """One update for many.

    Args:
        rule: Which; `fedloom.tasks.aggregation.bounds.too_few` must have no objection.
        updates: Finite, of one layout, in an order that does not depend on how they arrived: it decides between equals.

    Returns:
        The update, float64, and the share of each client in it where the rule chooses clients and not coordinates.
    """
    count = len(updates)
    if rule.method == "median":
        return median(updates), {}
    if rule.method == "trimmed_mean":
        ends = cut(rule.trim_ratio, count)
        return by_coordinate(updates, lambda block: np.sort(block, axis=0)[ends : count - ends].mean(axis=0)), {}
    hostile = assumed_hostile(rule, count)
    squares = squared_distances(updates)
    if rule.method == "bulyan":
        chosen = [updates[row] for row in bulyan_choice(squares, hostile, rule.closest)]
        return by_coordinate(chosen, lambda block: nearest_mean(block, len(chosen) - 2 * hostile)), {}
    wanted = 1 if rule.method == "krum" else max(1, count - hostile - 2)
    best = np.argsort(krum_scores(squares, hostile, rule.closest), kind="stable")[:wanted]
    chosen = [updates[row] for row in sorted(best)]
    made = by_coordinate(chosen, lambda block: np.asarray(block.mean(axis=0)))
    return made, {update.client: 1.0 / wanted for update in chosen}


def krum_scores(squares: Matrix, hostile: int, closest: int | None = None) -> Matrix:
    """Sum of the squared distances of each update to its n - f - 2 nearest others, or to fewer where `closest` says so.

    Args:
        squares: Squared distances, shape [n, n].
        hostile: f.
        closest: At most so many others.
    """
    near = max(1, len(squares) - hostile - 2)
    near = near if closest is None else min(near, closest)
    others = squares + np.diag(np.full(len(squares), np.inf))
    return np.asarray(np.sort(others, axis=1)[:, :near].sum(axis=1))


def bulyan_choice(squares: Matrix, hostile: int, closest: int | None = None) -> list[int]:
    """Rows of the n - 2f updates that Krum chooses one after the other, sorted."""
    left = list(range(len(squares)))
    chosen: list[int] = []
    for _ in range(len(squares) - 2 * hostile):
        if len(left) == 1:
            chosen += left
            break
        scores = krum_scores(squares[np.ix_(left, left)], hostile, closest)
        chosen.append(left.pop(int(np.argmin(scores))))
    return sorted(chosen)


def nearest_mean(block: Matrix, keep: int) -> Matrix:
    """Mean of the `keep` values of each column that are nearest to its median."""
    away = np.abs(block - np.median(block, axis=0))
    rows = np.argsort(away, axis=0, kind="stable")[:keep]
    return np.asarray(np.take_along_axis(block, np.sort(rows, axis=0), axis=0).mean(axis=0))
