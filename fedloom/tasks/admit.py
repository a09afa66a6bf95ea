"""Who takes part in an aggregation of given updates: every client of the fleet that gave one and is eligible."""

from __future__ import annotations

from typing import Any

from fedloom.tasks.errors import RunError
from fedloom.tasks.given import as_json, read_index
from fedloom.tasks.select import split
from fedloom.tasks.selection import evidence
from fedloom.tasks.selection.eligibility import ineligibility
from fedloom.tasks.selection.history import started
from fedloom.tasks.step import Place, StepResult


def admit(place: Place) -> StepResult:
    """Write the decision, as a draw does, and keep what the index says of those who take part.

    Nobody is drawn: whoever is in the index and may take part does.

    Raises:
        RunError: when there are fewer than a round needs, or the index cannot be read.
    """
    run, wanted = place.run, place.run.recipe.selection
    given = read_index(place)
    reasons = dict(zip(run.fleet.clients, ineligibility(run.fleet, wanted), strict=True))
    refused = dict(given.refused)
    for client in given.entries:
        reason = reasons.get(client, "it is no client of the fleet")
        if reason:
            refused[client] = reason
    cohort = sorted(given.entries.keys() - refused.keys())
    shards = split(cohort, wanted.shard_size) or [[]]
    decision = run.store.write_json(
        place.key("decision.json"),
        {
            "decisions": list(evidence.DECISIONS),
            "round": place.round,
            "algorithm": "given",
            "fleet": {"id": run.fleet.fleet_id, "digest": run.recipe.fleet_digest, "clients": len(run.fleet.clients)},
            "index": given.sha256,
            "eligible": len(cohort),
            "cohort": cohort,
            "shards": shards,
            "clients": _explain(run.fleet.clients, cohort, refused),
        },
    )
    if len(cohort) < wanted.minimum:
        raise RunError(
            f"{len(cohort)} given updates may count, {wanted.minimum} are needed "
            f"({_summary(refused) or 'the index has no others'}); every client's reason stands in {decision.key}"
        )
    entries = {client: as_json(given.entries[client]) for client in cohort}
    outputs = {
        "eligible": len(cohort),
        "cohort": len(cohort),
        "shards": list(range(len(shards))),
        "low_eligibility": len(cohort) < wanted.alert_below,
        "skipped": None,
        "at": started(run),
        "now": given.now,
    }
    if refused:
        outputs["warning"] = f"{len(refused)} given updates do not count ({_summary(refused)})"
    return StepResult(
        outputs, {"decision": decision, "entries": run.store.write_json(place.key("given.json"), entries)}
    )


def _explain(fleet: tuple[str, ...], cohort: list[str], refused: dict[str, str]) -> dict[str, Any]:
    """Every client of the fleet and of the index, as `fedloom.tasks.selection.evidence.columns` has them."""
    taking_part, clients = set(cohort), sorted({*fleet, *refused})
    number = {"it gave an update": 0, "it gave no update": 1}
    part, reason = [], []
    for client in clients:
        part.append(2 if client in refused else 0 if client in taking_part else 1)
        why = refused.get(client, "it gave an update" if client in taking_part else "it gave no update")
        reason.append(number.setdefault(why, len(number)))
    return {"client": clients, "decision": part, "reason": reason, "reasons": list(number)}


def _summary(refused: dict[str, str]) -> str:
    """At most three of the refused, each with its reason."""
    shown = [f"{name}: {why}" for name, why in sorted(refused.items())[:3]]
    return "; ".join(shown) + (f"; and {len(refused) - 3} more" if len(refused) > 3 else "")
