"""Step "select": decide which clients take part in a round, with the reason for every client in or out."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.specs.criteria import Criterion
from fedloom.specs.fleet import Fleet
from fedloom.tasks.errors import ConfigurationError, RunError
from fedloom.tasks.recipe import SelectionRecipe
from fedloom.tasks.seeds import seed_sequence
from fedloom.tasks.step import Place, StepResult

Mask = NDArray[np.bool_]


def step(place: Place) -> StepResult:
    """Write the decision and return the shards of the cohort.

    Raises:
        RunError: when fewer clients are eligible than a round needs.
    """
    run, wanted = place.run, place.run.recipe.selection
    if run.recipe.kind == "aggregate":
        from fedloom.tasks.admit import admit  # which reads who is eligible from here

        return admit(place)
    reasons = ineligibility(run.fleet, wanted)
    eligible = np.array([not reason for reason in reasons], dtype=bool)
    rng = _luck(place)
    if wanted.algorithm == "poisson":
        chosen = draw_each(weights(run.fleet, wanted), eligible, wanted.target, rng)
    else:
        chosen = draw(weights(run.fleet, wanted), eligible, wanted.target, rng)
    cohort = [client for client, drawn in zip(run.fleet.clients, chosen, strict=True) if drawn]
    shards = split(cohort, wanted.shard_size) or [[]]  # an engine cannot wait for no shards at all
    decision = place.run.store.write_json(
        place.key("decision.json"),
        {
            "round": place.round,
            "algorithm": wanted.algorithm,
            "fleet": {"id": run.fleet.fleet_id, "digest": run.recipe.fleet_digest, "clients": len(run.fleet.clients)},
            "eligible": int(eligible.sum()),
            "cohort": cohort,
            "shards": shards,
            "clients": _explain(run.fleet, reasons, chosen, wanted, int(eligible.sum())),
        },
    )
    if eligible.sum() < wanted.minimum:
        raise RunError(
            f"round {place.round} cannot start: {int(eligible.sum())} of {len(run.fleet.clients)} clients are "
            f"eligible, {wanted.minimum} are needed ({_summary(reasons)}); every client's reason stands in "
            f"{decision.key}"
        )
    return StepResult(
        {
            "eligible": int(eligible.sum()),
            "cohort": len(cohort),
            "shards": list(range(len(shards))),
            "low_eligibility": bool(eligible.sum() < wanted.alert_below),
        },
        {"decision": decision},
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


def ineligibility(fleet: Fleet, wanted: SelectionRecipe) -> list[str]:
    """Why each client of the fleet may not take part; empty for the eligible."""
    failed: list[list[str]] = [[] for _ in fleet.clients]
    for criterion in wanted.criteria:
        column = fleet.attributes[criterion.column]
        for reasons, value in zip(failed, column, strict=True):
            if not criterion.accepts(value):
                reasons.append(_reason(criterion, value))
    blocked = dict(wanted.blocked)
    for i, client in enumerate(fleet.clients):
        if client in blocked:
            failed[i].append(f"blacklisted: {blocked[client]}" if blocked[client] else "blacklisted")
    return ["; ".join(reasons) for reasons in failed]


def weights(fleet: Fleet, wanted: SelectionRecipe) -> NDArray[np.float64]:
    """Sampling weight of each client, shape [clients], not normalised; an unknown value counts as zero."""
    drawn: NDArray[np.float64] = np.ones(len(fleet.clients))
    if wanted.weight_column is not None:
        column = fleet.attributes[wanted.weight_column]
        drawn = np.array([0.0 if value is None else max(float(value), 0.0) for value in column])
    grey = set(wanted.grey)
    factors: NDArray[np.float64] = np.array([wanted.grey_factor if c in grey else 1.0 for c in fleet.clients])
    return drawn * factors


def draw(weight: NDArray[np.float64], eligible: Mask, target: int, rng: np.random.Generator) -> Mask:
    """Draw up to `target` eligible clients without replacement, in proportion to their weights.

    Exponential keys with the weights as rates; the smallest are drawn (Efraimidis and Spirakis, "Weighted
    random sampling with a reservoir", 2006). Clients of weight zero come last.

    Args:
        weight: Shape [clients], non-negative.
        eligible: Shape [clients].
        target: Clients wanted.
        rng: One number is drawn for every client of the fleet, eligible or not, so that a client's luck does
            not depend on the others.
    """
    keys = rng.exponential(size=len(weight))
    with np.errstate(divide="ignore", over="ignore"):
        keys = np.where(weight > 0, keys / weight, np.inf)
    candidates = np.flatnonzero(eligible)
    order = candidates[np.argsort(keys[candidates], kind="stable")]
    chosen = np.zeros(len(weight), dtype=bool)
    chosen[order[:target]] = True
    return chosen


def draw_each(weight: NDArray[np.float64], eligible: Mask, target: int, rng: np.random.Generator) -> Mask:
    """Draw each eligible client on its own, so that `target` are drawn on average (Poisson sampling).

    Args:
        weight: Shape [clients], factors on the common probability (1, or less for the grey).
        eligible: Shape [clients].
        target: Clients wanted on average.
        rng: One number is drawn for every client of the fleet.
    """
    rate = min(1.0, target / max(int(eligible.sum()), 1))
    drawn: Mask = eligible & (rng.random(len(weight)) < rate * weight)
    return drawn


def _luck(place: Place) -> np.random.Generator:
    """Where draws come from: the job's seed, or the server's secret where privacy counts on nobody knowing them."""
    run = place.run
    privacy = run.recipe.privacy
    if privacy is None or privacy.unit == "record" or privacy.sampling == "all":
        return np.random.default_rng(seed_sequence(run.recipe.seed, "select", place.round))
    from fedloom.tasks.client_home import server_folder
    from fedloom.tasks.privacy.noise import noise_source, own_secret

    return noise_source(own_secret(server_folder()), "select", run.run_id, place.round, run.recipe.fleet_digest)


def split(cohort: list[str], size: int) -> list[list[str]]:
    """The cohort in shards of at most `size` clients, in sorted order."""
    ordered = sorted(cohort)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def _reason(criterion: Criterion, value: Any) -> str:
    name = criterion.path.removeprefix("eligibility_criteria.")
    if value is None:
        return f"{criterion.column} is unknown ({name})"
    words = {"at_least": "is below", "at_most": "is above", "equals": "is not", "one_of": "is none of"}
    wanted = list(criterion.value) if isinstance(criterion.value, tuple) else criterion.value
    return f"{criterion.column} {value} {words[criterion.test]} {wanted} ({name})"


def _explain(
    fleet: Fleet, reasons: list[str], chosen: Mask, wanted: SelectionRecipe, eligible: int
) -> list[dict[str, str]]:
    took = f"drawn by {wanted.algorithm}, {min(wanted.target, eligible)} of {eligible} eligible clients"
    missed = f"eligible, not drawn by {wanted.algorithm}"
    rows = []
    for client, reason, drawn in zip(fleet.clients, reasons, chosen, strict=True):
        decision = "selected" if drawn else "ineligible" if reason else "not drawn"
        rows.append({"client": client, "decision": decision, "reason": reason or (took if drawn else missed)})
    return rows


def _summary(reasons: list[str]) -> str:
    causes = Counter(part.rpartition("(")[2].rstrip(")") for reason in reasons if reason for part in reason.split("; "))
    return ", ".join(f"{name}: {count}" for name, count in causes.most_common(5)) or "the fleet is too small"
