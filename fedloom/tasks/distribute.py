"""Step "distribute": say which model the clients of a round start from, and what they do with it."""

from __future__ import annotations

from dataclasses import replace

from fedloom.specs.canonical import plain
from fedloom.tasks.client import make_order
from fedloom.tasks.masked.unmask import chunks
from fedloom.tasks.model_store import model_key
from fedloom.tasks.scaffold.server import server_control
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Write the order of the round, after checking that its model is in the store and undamaged.

    Raises:
        StoreError: when the model is missing or damaged.
    """
    run, recipe = place.run, place.run.recipe
    if place.round == 1:
        digest = place.result("initialise", round=0)["outputs"]["model_digest"]
    else:
        before = place.result("aggregate", round=place.round - 1)["outputs"]
        digest = before["model_digest"]
        if recipe.privacy is not None and recipe.privacy.adaptive is not None:
            recipe = replace(recipe, privacy=replace(recipe.privacy, clip=before["next_clip"]))
    size = len(run.store.read(model_key(digest), expect=digest))
    files = server_control(place)
    control = files.get("control")
    asked = make_order(recipe, run.plan_digest, place.round, digest, size, control.sha256 if control else None)
    files["order"] = run.store.write_json(place.key("order.json"), plain(asked))
    cohort = place.result("select")["outputs"]["cohort"]
    outputs = {
        "model_digest": digest,
        "model_bytes": size,
        "clients": cohort,
        "bytes_down": (size + (control.bytes if control else 0)) * cohort,
        "learning_rate": asked.training.learning_rate,
    }
    if recipe.privacy is not None:
        outputs["clip"] = recipe.privacy.clip
    if recipe.masking is not None and recipe.masking.protocol == "pairwise":
        outputs["chunks"] = list(range(chunks(recipe.masking.parameters)))
    return StepResult(outputs, files)
