"""Step "validate": what a run needs from outside is there, before any client trains."""

from __future__ import annotations

from fedloom.tasks.evaluate import holdout_digest, read_holdout
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Read the holdout; that the store can be written shows when the result is.

    Raises:
        RunError: when the held-out data cannot be read, or have labels that are no class of the model.
    """
    recipe = place.run.recipe
    if recipe.evaluation.holdout is None:
        return StepResult({"windows": 0, "holdout": None})
    windows = read_holdout(place.run, recipe)
    return StepResult({"windows": len(windows.x), "holdout": holdout_digest(windows)})
