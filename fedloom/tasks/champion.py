"""The champion of a job: a pointer to the last model that passed the gate, moved in one atomic write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from filelock import FileLock

from fedloom.specs.canonical import plain, restore
from fedloom.tasks.errors import ConfigurationError, StoreError
from fedloom.tasks.recipe import ModelRecipe, Recipe
from fedloom.tasks.step import Run
from fedloom.tasks.versions import next_version
from fedloom.tasks.window_spec import WindowSpec

_FIELDS = frozenset({"run_id", "model_version", "model_digest", "model", "inputs", "metrics", "holdout"})


def _key(run: Run) -> str:
    return f"champions/{run.recipe.job_id}.json"


@contextmanager
def decided_alone(run: Run) -> Iterator[None]:
    """Keep other runs on this store from moving the pointer between comparison and promotion.

    Object stores have no locks: there, of two runs of a job that end in the same second the last one counts.
    """
    folder = run.store.local_folder
    if folder is None:
        yield
        return
    lock = FileLock(folder / "champions" / f".{run.recipe.job_id}.lock")
    try:
        (folder / "champions").mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise StoreError(f"cannot lock champions/ in the run store {run.store.url}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def current(run: Run) -> dict[str, Any] | None:
    """The pointer, or None when no model of the job has passed the gate."""
    key = _key(run)
    if not run.store.exists(key):
        return None
    pointer = run.store.read_json(key)
    if not isinstance(pointer, dict) or not pointer.keys() >= _FIELDS:
        raise StoreError(
            f"{key} in the run store {run.store.url} is damaged; restore it, or delete it to start without a champion: "
            "then the next model is compared with none"
        )
    return pointer


def own_recipe(run: Run, pointer: dict[str, Any]) -> Recipe:
    """The run's recipe with the champion's own network and inputs, to measure it as it was trained.

    Raises:
        ConfigurationError: when the champion predicts something else.
    """
    try:
        model, inputs = restore(ModelRecipe, pointer["model"]), restore(WindowSpec, pointer["inputs"])
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"the pointer {_key(run)} is damaged: {error}") from error
    if (model.output, model.classes) != (run.recipe.model.output, run.recipe.model.classes):
        raise ConfigurationError(f"it is a {model.output} model with {model.classes} classes")
    return replace(run.recipe, model=model, inputs=inputs)


def promote(run: Run, round: int, evaluation: dict[str, Any], holder: dict[str, Any] | None) -> str:
    """Point to the model of a run; the same run may do so again without effect.

    Args:
        run: The run.
        round: Its last round.
        evaluation: What "evaluate" found of its model.
        holder: The pointer as it is; None where there is none.

    Returns:
        The version of the model.

    Raises:
        StoreError: when the pointer has no version that could grow.
    """
    if holder is not None and holder["run_id"] == run.run_id:
        version = str(holder["model_version"])
    else:
        before = holder["model_version"] if holder is not None else None
        try:
            version = next_version(run.recipe.model_version, before, run.recipe.increment)
        except ValueError as error:
            raise StoreError(f"{_key(run)} in the run store {run.store.url} has no version: {before!r}") from error
    run.store.write_json(
        _key(run),
        {
            "job_id": run.recipe.job_id,
            "model_version": version,
            "run_id": run.run_id,
            "round": round,
            "model_digest": evaluation["model_digest"],
            "model": plain(run.recipe.model),
            "inputs": plain(run.recipe.inputs),
            "metrics": evaluation["metrics"],
            "holdout": evaluation["holdout"],
        },
    )
    return version
