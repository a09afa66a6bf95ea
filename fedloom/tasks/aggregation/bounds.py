"""How many updates a robust rule needs: known when a job is compiled, and asked again in each round."""

from __future__ import annotations

import math

from fedloom.tasks.recipe import RobustRecipe

_PER_HOSTILE = {"krum": 2, "multi_krum": 2, "bulyan": 4}


def too_few(rule: RobustRecipe, count: int) -> str | None:
    """Why a rule cannot keep its promise with so many updates; None when it can."""
    factor = _PER_HOSTILE.get(rule.method)
    if factor is not None:
        hostile = assumed_hostile(rule, count)
        need = factor * hostile + 3
        if count < need:
            return f"{rule.method} with {hostile} hostile updates needs at least {need}, there are {count}"
    elif count <= 2 * cut(rule.trim_ratio, count):
        return f"{rule.method} has nothing left of {count} updates"
    return None


def assumed_hostile(rule: RobustRecipe, count: int) -> int:
    """The f of Krum and Bulyan: what the job says, or the largest that so many updates allow."""
    if rule.hostile is not None:
        return rule.hostile
    return max(0, (count - 3) // _PER_HOSTILE[rule.method])


def cut(ratio: float, count: int) -> int:
    """Values that a trimmed mean leaves out at each end."""
    return math.floor(ratio * count + 1e-9)
