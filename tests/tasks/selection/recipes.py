"""Fleets and recipes of selection that tests start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fedloom.flows.compile import compile_plan
from fedloom.flows.plan import Plan
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job
from fedloom.specs.fleet import Fleet
from fedloom.tasks.recipe import SelectionRecipe
from fedloom.tasks.step import Run
from tests.conftest import write_job


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


SELECTOR: dict[str, Any] = {
    "selector_metadata": {"selector_id": "selector-tiny", "name": "Tiny", "version": "1.0.0"},
    "eligibility_criteria": {"min_data_samples": 1},
    "selection_algorithm": {"algorithm": "random", "num_clients": 3},
    "fairness_policy": {"enabled": False},
}


def selector_job(folder: Path, selector: dict[str, Any], columns: dict[str, Any] | None = None, **job: Any) -> Path:
    """The tiny job with a selector, changed section by section, and with more columns in its fleet."""
    made = {name: SELECTOR.get(name, {}) | selector.get(name, {}) for name in (*SELECTOR, *selector)}
    write_job(folder, **({"client_selection": made["selection_algorithm"]["algorithm"]} | job))
    (folder / "selector.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    rows = (folder / "fleet.csv").read_text().splitlines()
    names = list(columns or {})
    lines = [",".join([rows[0], *names])]
    for i, row in enumerate(rows[1:]):
        values = [(columns or {})[name][i] for name in names]
        lines.append(",".join([row, *("" if value is None else str(value) for value in values)]))
    (folder / "fleet.csv").write_text("\n".join(lines) + "\n")
    return folder


def selector_run(
    folder: Path,
    store: Path,
    selector: dict[str, Any],
    columns: dict[str, Any] | None = None,
    name: str = "",
    **job: Any,
) -> tuple[Plan, Run]:
    """A run of that job, with its plan."""
    bundle = load_job(selector_job(folder, selector, columns, **job))
    plan = compile_plan(bundle)
    return plan, open_run(plan, bundle, str(store), name)
