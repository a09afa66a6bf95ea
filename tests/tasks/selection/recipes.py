"""Fleets and recipes of selection that tests start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedloom.specs.fleet import Fleet
from fedloom.tasks.recipe import SelectionRecipe


def fleet(**columns: tuple[Any, ...]) -> Fleet:
    size = len(next(iter(columns.values())))
    clients = tuple(f"c{i:05d}" if size > 10 else f"c{i}" for i in range(size))
    return Fleet("f", "1.0.0", Path(), clients, tuple(f"{c}.csv" for c in clients), columns)


def recipe(**changes: Any) -> SelectionRecipe:
    base: dict[str, Any] = {
        "algorithm": "random", "target": 2, "minimum": 1, "criteria": (), "where": None, "blocked": (),
        "auto_block": None, "grey": (), "grey_factor": 1.0, "score": (), "rarity": (), "sampling_weights": (),
        "stratify_by": (), "exploration": 0.0, "fairness": None, "on_shortfall": "fail", "max_wait": 0,
        "keep_history": True, "alert_below": 0, "shard_size": 2,
    }  # fmt: skip
    return SelectionRecipe(**(base | changes))
