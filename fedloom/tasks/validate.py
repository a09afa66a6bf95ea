"""Step "validate": what a run needs from outside is there, before any client trains."""

from __future__ import annotations

from fedloom.tasks.client_home import load_registry, make_keys
from fedloom.tasks.drift import measure_drift, read_baseline
from fedloom.tasks.evaluate import holdout_digest, read_holdout
from fedloom.tasks.secure_aggregation.identity import encode_registry
from fedloom.tasks.server_keys import published_keys, trust
from fedloom.tasks.step import Outputs, Place, StepResult


def step(place: Place) -> StepResult:
    """Read the holdout, and see that simulated clients have identity keys; the store can be written if this ends.

    How far the held-out data have drifted does not depend on the model: it is measured here, once.

    Raises:
        RunError: when the clients' keys cannot be kept, they trust other servers, or the held-out data or the baseline
            distribution cannot be read or do not go with the model.
    """
    run, recipe = place.run, place.run.recipe
    files = {}
    if recipe.masking is not None:
        make_keys(run.fleet)
        registry = encode_registry(load_registry(run.fleet.fleet_id))
        if recipe.masking.protocol == "two_server":
            trust(run.fleet.fleet_id, published_keys(place))
        files["registry"] = run.store.write(place.key("registry.json"), registry)
    outputs: Outputs = {"windows": 0, "holdout": None, "drift": None, "baseline": None}
    if recipe.evaluation.holdout is not None:
        windows = read_holdout(run, recipe)
        outputs |= {"windows": len(windows.x), "holdout": holdout_digest(windows)}
        if recipe.evaluation.drift is not None:
            baseline = read_baseline(recipe.evaluation.drift.baseline, run.folder)
            drift = measure_drift(baseline, windows, recipe.inputs)
            outputs |= {"drift": drift, "baseline": baseline.sha256}
    return StepResult(outputs, files)
