"""Drawing clients: in proportion to weights, each on its own, or by the best score; place after place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks.selection.eligibility import Mask, Rows
from fedloom.tasks.selection.scores import Weights


@dataclass(frozen=True)
class Turn:
    """Some places of a cohort, and who gets them.

    Attributes:
        name: Why, for the evidence.
        places: How many at most.
        order: Rows of the clients that may have them, first come first.
    """

    name: str
    places: int
    order: Rows


def race(weight: Weights, luck: Weights, candidates: Rows) -> Rows:
    """Candidates in the order of a weighted draw without replacement.

    Exponential keys with the weights as rates; the smallest come first (Efraimidis and Spirakis, "Weighted random
    sampling with a reservoir", 2006). Clients of weight zero come last, with equal chances among themselves.

    Args:
        weight: Shape [clients], non-negative.
        luck: Shape [clients], exponentially distributed: one number for every client of the fleet, eligible or not,
            so that a client's luck does not depend on the others.
        candidates: Rows to be ordered.
    """
    own, chance = luck[candidates], weight[candidates]
    with np.errstate(divide="ignore", over="ignore"):
        keys = np.where(chance > 0, own / chance, np.inf)
    return candidates[np.lexsort((own, keys))]


def best(score: Weights, luck: Weights, candidates: Rows) -> Rows:
    """Candidates by falling score; luck decides between equals."""
    return candidates[np.lexsort((luck[candidates], -score[candidates]))]


def draw_each(weight: Weights, eligible: Mask, target: int, rng: np.random.Generator) -> Mask:
    """Draw each eligible client on its own, so that `target` are drawn on average (Poisson sampling).

    Args:
        weight: Shape [clients], factors on the common probability (1, or less for the grey).
        eligible: Shape [clients].
        target: Clients wanted on average.
        rng: One number is drawn for every client of the fleet.
    """
    rate = min(1.0, target / max(int(eligible.sum()), 1))
    drawn: Mask = eligible & (rng.random(len(weight)) < rate * weight)
    return drawn


def fill(turns: Sequence[Turn], group: Rows, quota: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the places of a cohort away, turn by turn, with no group getting more than its quota.

    Args:
        turns: In their order.
        group: The group of each client, shape [clients].
        quota: Places of each group, shape [groups].

    Returns:
        Shape [clients]: the number of the turn in which a client got a place, -1 for none.
    """
    got = np.full(len(group), -1, dtype=np.int64)
    left = quota.copy()
    for number, turn in enumerate(turns):
        waiting = turn.order[got[turn.order] < 0]
        taken = waiting[_rank(group[waiting]) < left[group[waiting]]][: max(turn.places, 0)]
        got[taken] = number
        left -= np.bincount(group[taken], minlength=len(left))
    return got


def _rank(groups: Rows) -> NDArray[np.int64]:
    """How many of the same group stand before each one."""
    order = np.argsort(groups, kind="stable")
    firsts = np.r_[True, np.diff(groups[order]) != 0] if len(groups) else np.zeros(0, dtype=bool)
    place = np.arange(len(groups))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(firsts, place, 0))
    return rank
