"""Step "commit_privacy": put what the rounds did cost in the place of what was reserved for them."""

from __future__ import annotations

from fedloom.tasks.privacy.ledger import Cost, commit, signer
from fedloom.tasks.privacy.mechanism import spent
from fedloom.tasks.privacy.reserve_privacy import promised
from fedloom.tasks.report import last_round
from fedloom.tasks.step import Place, StepResult


def step(place: Place) -> StepResult:
    """Commit epsilon of the rounds that took place, whatever the gate said of their model."""
    run, privacy = place.run, promised(place)
    rounds = last_round(run).round
    cost = Cost(spent(privacy, run.recipe.masking, rounds), privacy.delta)
    now = commit(run.store, privacy.ledger, run.run_id, cost, signer())
    return StepResult({"ledger": privacy.ledger, "epsilon": cost.epsilon, "delta": cost.delta, "warning": now.warning})
