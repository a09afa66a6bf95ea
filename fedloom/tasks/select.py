"""Step "select": decide which clients take part in a round, with the reason for every client in or out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from fedloom.tasks.errors import ConfigurationError, RunError
from fedloom.tasks.seeds import seed_sequence
from fedloom.tasks.selection import evidence
from fedloom.tasks.selection.decide import Decision, decide
from fedloom.tasks.selection.history import current_tally, freeze, frozen_tally
from fedloom.tasks.selection.shortfall import wait_for
from fedloom.tasks.selection.tally import Tally
from fedloom.tasks.step import Place, StepResult
from fedloom.tasks.store import Stored


def step(place: Place) -> StepResult:
    """Write the decision and return the shards of the cohort; of a round that is skipped, none has a client.

    Raises:
        RunError: when the round cannot have a cohort, and the recipe does not say to skip it.
    """
    run, wanted = place.run, place.run.recipe.selection
    if run.recipe.kind == "aggregate":
        from fedloom.tasks.admit import admit  # which reads who is eligible from here

        return admit(place)
    decision, tally = _decide(place)
    if wanted.on_shortfall == "skip_round":
        decision = _lucky_enough(decision, wanted.algorithm, run.recipe.aggregation.quorum)
    cohort = [run.fleet.clients[row] for row in np.flatnonzero(decision.chosen)]
    shards = split(cohort, wanted.shard_size) or [[]]  # an engine cannot wait for no shards at all
    skipped = decision.shortfall if wanted.on_shortfall == "skip_round" else None
    stored = _write(place, decision, tally, cohort, shards, skipped)
    if decision.shortfall is not None and skipped is None:
        raise RunError(
            f"round {place.round} cannot start: {decision.shortfall}; every client's reason stands in {stored.key}"
        )
    eligible = int(decision.eligible.sum())
    return StepResult(
        {
            "eligible": eligible,
            "cohort": len(cohort),
            "shards": list(range(len(shards))),
            "low_eligibility": bool(eligible < wanted.alert_below),
            "skipped": skipped,
        },
        {"decision": stored},
    )


def cohort_shards(place: Place) -> list[list[str]]:
    """The client ids of each shard of the round, sorted."""
    shards: list[list[str]] = json.loads(place.file("select", "decision"))["shards"]
    return shards


def shard_clients(place: Place) -> list[str]:
    """The ids of the shard's clients, sorted.

    Raises:
        ConfigurationError: when the round has no such shard.
    """
    shards = cohort_shards(place)
    if place.shard is None or place.shard >= len(shards):
        raise ConfigurationError(f"round {place.round} has shards 0 to {len(shards) - 1}, not {place.shard}")
    return shards[place.shard]


def split(cohort: list[str], size: int) -> list[list[str]]:
    """The cohort in shards of at most `size` clients, in sorted order."""
    ordered = sorted(cohort)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def _decide(place: Place) -> tuple[Decision, Tally | None]:
    """The decision, and the frozen tally of earlier rounds that it was made with.

    A shortfall that a new period may end is waited for before the tally is frozen; repeated, the step goes by that.
    """
    fleet, wanted = place.run.fleet, place.run.recipe.selection
    if not wanted.reads_history:
        return decide(fleet, wanted, None, _luck(place)), None
    tally = frozen_tally(place)
    if tally is not None:
        return decide(fleet, wanted, tally, _luck(place)), tally
    tally = current_tally(place)
    decision = decide(fleet, wanted, tally, _luck(place))
    if decision.shortfall is not None and wanted.on_shortfall == "wait":
        later = wait_for(tally, wanted.max_wait)
        if later is None:
            reason = f"{decision.shortfall}; no {tally.period} begins within max_wait ({wanted.max_wait} minutes)"
            return replace(decision, shortfall=reason), tally
        tally = later
    tally = freeze(place, tally)
    return decide(fleet, wanted, tally, _luck(place)), tally


def _lucky_enough(decision: Decision, algorithm: str, quorum: int) -> Decision:
    """The decision, or a shortfall where Poisson sampling happened to draw fewer clients than count."""
    drawn = int(decision.chosen.sum())
    if algorithm != "poisson" or decision.shortfall is not None or drawn >= quorum:
        return decision
    words = f"{drawn} clients were drawn, the quorum is {quorum}"
    return replace(decision, turn=np.full_like(decision.turn, -1), shortfall=words)


def _write(
    place: Place, decision: Decision, tally: Tally | None, cohort: list[str], shards: list[list[str]], skip: str | None
) -> Stored:
    run, wanted = place.run, place.run.recipe.selection
    history = None if tally is None else {"at": tally.at, "period": tally.period, "digest": _tally_digest(place)}
    return run.store.write(
        place.key("decision.json"),
        evidence.encode(
            {
                "round": place.round,
                "algorithm": wanted.algorithm,
                "score": dict(wanted.score),
                "fleet": {"id": run.fleet.fleet_id, "digest": run.recipe.fleet_digest, "clients": len(run.fleet)},
                "history": history,
                "eligible": int(decision.eligible.sum()),
                "cohort": cohort,
                "shards": shards,
                "shortfall": decision.shortfall,
                "skipped": skip is not None,
                "remarks": list(decision.remarks),
                "groups": evidence.splits(decision),
                "clients": evidence.columns(run.fleet, decision, wanted),
                "decisions": list(evidence.DECISIONS),
            }
        ),
    )


def _tally_digest(place: Place) -> str | None:
    """SHA-256 of the frozen tally; None for a round that did not come so far."""
    key = place.key("tally.json")
    return place.run.store.stat(key).sha256 if place.run.store.exists(key) else None


def _luck(place: Place) -> np.random.Generator:
    """Where draws come from: the job's seed, or the server's secret where clients are protected as a whole."""
    run = place.run
    privacy = run.recipe.privacy
    if privacy is None or privacy.unit == "record":
        return np.random.default_rng(seed_sequence(run.recipe.seed, "select", place.round))
    from fedloom.tasks.client_home import server_folder
    from fedloom.tasks.privacy.noise import noise_source, own_secret

    return noise_source(own_secret(server_folder()), "select", run.run_id, place.round, run.recipe.fleet_digest)
