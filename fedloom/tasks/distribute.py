"""Step "distribute": say which model the clients of a round start from, and what they do with it."""

from __future__ import annotations

from fedloom.specs.canonical import plain
from fedloom.tasks.client import make_order
from fedloom.tasks.masked.unmask import chunks
from fedloom.tasks.model_store import model_key
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Write the order of the round, after checking that its model is in the store and undamaged.

    Raises:
        StoreError: when the model is missing or damaged.
    """
    run = place.run
    if place.round == 1:
        digest = place.result("initialise", round=0)["outputs"]["model_digest"]
    else:
        digest = place.result("aggregate", round=place.round - 1)["outputs"]["model_digest"]
    size = len(run.store.read(model_key(digest), expect=digest))
    order = run.store.write_json(
        place.key("order.json"), plain(make_order(run.recipe, run.plan_digest, place.round, digest, size))
    )
    cohort = place.result("select")["outputs"]["cohort"]
    outputs = {"model_digest": digest, "model_bytes": size, "clients": cohort, "bytes_down": size * cohort}
    if run.recipe.masking is not None:
        outputs["chunks"] = list(range(chunks(run.recipe.masking.parameters)))
    return StepResult(outputs, {"order": order})
