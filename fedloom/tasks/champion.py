"""The champion of a job: a pointer to the last model that passed the gate, moved in one atomic write."""

from __future__ import annotations

from typing import Any

from fedloom.tasks.step import Run


def _key(run: Run) -> str:
    return f"champions/{run.recipe.job_id}.json"


def current(run: Run) -> dict[str, Any] | None:
    """The pointer, or None when no model of the job has passed the gate."""
    key = _key(run)
    if not run.store.exists(key):
        return None
    pointer: dict[str, Any] = run.store.read_json(key)
    return pointer


def promote(run: Run, round: int, evaluation: dict[str, Any]) -> None:
    """Point to the model of a run; the same run may do so again without effect."""
    run.store.write_json(
        _key(run),
        {
            "job_id": run.recipe.job_id,
            "model_version": run.recipe.model_version,
            "run_id": run.run_id,
            "round": round,
            "model_digest": evaluation["model_digest"],
            "metrics": evaluation["metrics"],
            "holdout": evaluation["holdout"],
        },
    )
