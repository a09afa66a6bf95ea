"""The steps of secure aggregation with two servers, each with a folder of its own that the other's steps do not see."""

from __future__ import annotations

from fedloom.flows.plan import OutputRef, Resources, Step
from fedloom.tasks.recipe import Recipe


def server_keys(recipe: Recipe, needs: Resources) -> tuple[Step, ...]:
    """Before all else, each server makes its key pair; none where there are not two."""
    if recipe.masking is None or recipe.masking.protocol != "two_server":
        return ()
    return (
        Step("first_key", (), needs, retries=1, at_server=True),
        Step("second_key", (), needs, retries=1, at_second_server=True),
    )


def halves(needs: Resources) -> tuple[Step, ...]:
    """Clients send once; then both servers see what they hold, and add what both do."""
    shards = OutputRef("select", "shards")
    checks = ("check_first", "check_second")
    return (
        Step("split_update", ("train",), needs, retries=1, fan_out=shards, may_be_lost=True, at_clients=True),
        Step("check_first", ("split_update",), needs, retries=1, at_server=True),
        Step("check_second", ("split_update",), needs, retries=1, at_second_server=True),
        Step("first_half", checks, needs, retries=1, at_server=True),
        Step("second_half", checks, needs, retries=1, at_second_server=True),
    )


def names(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """What a step that comes after all of them needs."""
    return tuple(step.name for step in steps)
