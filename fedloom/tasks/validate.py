"""Step "validate": what a run needs from outside is there, before any client trains."""

from __future__ import annotations

from fedloom.tasks.client_home import load_registry, make_keys
from fedloom.tasks.evaluate import holdout_digest, read_holdout
from fedloom.tasks.secure_aggregation.identity import encode_registry
from fedloom.tasks.server_keys import published_keys, trust
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Read the holdout, and see that simulated clients have identity keys; the store can be written if this ends.

    Raises:
        RunError: when the clients' keys cannot be kept, they trust other servers, or the held-out data cannot be read
            or have labels that are no class of the model.
    """
    run, recipe = place.run, place.run.recipe
    files = {}
    if recipe.masking is not None:
        make_keys(run.fleet)
        registry = encode_registry(load_registry(run.fleet.fleet_id))
        if recipe.masking.protocol == "two_server":
            trust(run.fleet.fleet_id, published_keys(place))
        files["registry"] = run.store.write(place.key("registry.json"), registry)
    if recipe.evaluation.holdout is None:
        return StepResult({"windows": 0, "holdout": None}, files)
    windows = read_holdout(run, recipe)
    return StepResult({"windows": len(windows.x), "holdout": holdout_digest(windows)}, files)
