"""Step "reserve_privacy": charge what the rounds will cost to the population's ledger, before anybody trains."""

from __future__ import annotations

from fedloom.tasks.privacy.ledger import Cost, reserve, signer
from fedloom.tasks.recipe import PrivacyRecipe
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Reserve epsilon and delta of all rounds.

    Raises:
        BudgetError: when the budget does not have them.
    """
    run, privacy = place.run, promised(place)
    budget = None
    if privacy.budget_epsilon is not None:
        budget = Cost(privacy.budget_epsilon, 1.0 if privacy.budget_delta is None else privacy.budget_delta)
    cost = Cost(privacy.epsilon, privacy.delta)
    now = reserve(run.store, privacy.ledger, run.run_id, run.recipe.job_id, cost, budget, signer())
    return StepResult({"ledger": privacy.ledger, "epsilon": cost.epsilon, "delta": cost.delta, "warning": now.warning})


def promised(place: Place) -> PrivacyRecipe:
    """The promise; only steps of plans that have one ask."""
    privacy = place.run.recipe.privacy
    assert privacy is not None, "the plan promises no privacy"
    return privacy
