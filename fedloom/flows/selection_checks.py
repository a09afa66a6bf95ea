"""What a choice of clients needs to be carried out, and settings of it that do not go together."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.flows.aggregation import checks_of
from fedloom.flows.selection import (
    DIVERSITY,
    QUALITY,
    SAMPLES,
    algorithm_of,
    own_criteria,
    parity_of,
    rarity_columns,
    score_of,
    stratify_by,
)
from fedloom.specs.bundle import JobBundle
from fedloom.specs.criteria import criteria
from fedloom.specs.fleet import Fleet
from fedloom.specs.selector import FairnessPolicy, Selector
from fedloom.specs.trails import Trail
from fedloom.tasks.recipe.selection import HISTORY_SCORES, word_of

Finding = tuple[str, Trail, str, str | None]
_JOB: Trail = ("orchestration_config", "client_selection")
_HOW = "selection_algorithm"
_FINDERS = {
    "data_poisoning_detected": {"data_poisoning_score"},
    "byzantine_behavior_detected": {"gradient_norm", "parameter_distance"},
}
"""Checks of updates that each criterion of the automatic blacklist goes by."""


def selection_findings(bundle: JobBundle) -> Iterator[Finding]:
    """Everything that keeps a choice of clients from being carried out on the job's fleet."""
    fleet, selector = bundle.fleet, bundle.selector
    if fleet is None:
        yield "job", (), "the job has no fleet to run on", "add a fleet.yaml, fleet.csv or fleet.parquet"
        return
    yield from _columns(bundle, fleet)
    yield from _scores(bundle, fleet)
    if selector is not None:
        yield from _said_twice(bundle, selector)
        yield from _fairness(selector)
        yield from _lists(selector)
        yield from _weights(selector, fleet)
    elif algorithm_of(bundle.job, None) == "weighted_random":
        hint = "add a selector.yaml with selection_algorithm.sampling_weights"
        yield "job", (*_JOB, "algorithm"), "weighted_random has no weights: a job does not say them", hint
    if algorithm_of(bundle.job, selector) == "poisson":
        yield from _poisson(bundle)


def _columns(bundle: JobBundle, fleet: Fleet) -> Iterator[Finding]:
    job, selector = bundle.job, bundle.selector
    tests = criteria(selector) if selector is not None else own_criteria(job)
    asked = [(test.column, test.path, _JOB) for test in tests]
    if selector is None:
        at = (*_JOB, "fairness_policy", "stratify_by")
        asked += [(name, "stratify_by", (*at, i)) for i, name in enumerate(stratify_by(job, None))]
    for column, reader, trail in asked:
        if column not in fleet.attributes:
            has = ", ".join(fleet.attributes) or "none"
            yield "job", trail, f"the fleet has no column {column!r}, which {reader} reads", f"its columns: {has}"


def _scores(bundle: JobBundle, fleet: Fleet) -> Iterator[Finding]:
    job, selector = bundle.job, bundle.selector
    parts = {name for name, _ in score_of(job, selector, fleet)}
    named = selector is not None and selector.selection_algorithm.importance_metric is not None
    kind = "selector" if selector is not None else "job"
    at: Trail = (_HOW, "importance_metric" if named else "algorithm") if selector is not None else (*_JOB, "algorithm")
    hidden = "masks" if job.privacy.secure_aggregation.enabled else ""
    hidden = hidden or ("a promise of privacy" if job.privacy.differential_privacy.enabled else "")
    for part in sorted(parts & HISTORY_SCORES) if hidden else ():
        message = f"{part} is computed from losses and norms of single clients, which {hidden} keeps from the server"
        yield kind, at, message, "draw by what the fleet's columns say"
    has = ", ".join(fleet.attributes) or "none"
    if "quantity" in parts and not _numeric(fleet, SAMPLES):
        reader = "importance_sampling"
        message = f"the fleet has no column of numbers {SAMPLES!r}, which {reader} reads"
        yield kind, at, message, f"its columns: {has}"
    for part, column in (("quality", QUALITY), ("diversity", DIVERSITY)):
        if part in parts and column in fleet.attributes and not _numeric(fleet, column):
            yield kind, at, f"the fleet's column {column!r} must be a number from 0 to 1", None
    if "diversity" in parts and DIVERSITY not in fleet.attributes and not rarity_columns(fleet):
        hint = f"add a column {DIVERSITY} (0 to 1), or operator, aircraft_type, flight_phase or geographic_region"
        yield kind, at, "the fleet has no column that says how diverse a client's data is", hint


def _said_twice(bundle: JobBundle, selector: Selector) -> Iterator[Finding]:
    chosen, hint = bundle.job.orchestration.client_selection, "say it in one place"
    if chosen.eligibility_criteria is not None:
        yield "job", (*_JOB, "eligibility_criteria"), "the selector has eligibility criteria too", hint
    if chosen.fairness_policy is not None:
        yield "job", (*_JOB, "fairness_policy"), "the selector has a fairness policy too", hint
    if chosen.target_clients not in (None, selector.selection_algorithm.num_clients):
        yield "job", (*_JOB, "target_clients"), "the selector's num_clients is another number", hint


def _fairness(selector: Selector) -> Iterator[Finding]:
    policy, how = selector.fairness_policy, selector.selection_algorithm
    at = "fairness_policy"
    if _counted(policy) and policy.period is None:
        yield "selector", (at,), "period is missing", "write period: quarter"
    if policy.enabled and policy.ensure_tail_participation and policy.tail_participation_rate is None:
        yield "selector", (at, "ensure_tail_participation"), "tail_participation_rate is missing", "0.2 keeps a fifth"
    parity = policy.group_parity
    if policy.enabled and parity is not None and parity.enabled:
        if not parity.dimensions:
            yield "selector", (at, "group_parity"), "dimensions are missing: parity is that of groups", None
        elif parity.tolerance is None:
            yield "selector", (at, "group_parity"), "tolerance is missing", "0.1 allows 40 to 60 % of two groups"
    if how.on_shortfall == "wait" and not (policy.enabled and policy.max_participation_per_period is not None):
        message = "nothing that eligibility depends on changes while a run waits: the roster is that of its start"
        hint = "write skip_round, or limit participation by fairness_policy.max_participation_per_period"
        yield "selector", (_HOW, "on_shortfall"), message, hint
    watch = selector.monitoring
    if watch is not None and not watch.track_participation_history and _needs_history(selector):
        message = "the fairness policy, the automatic blacklist or the algorithm needs the participation history"
        yield "selector", ("monitoring", "track_participation_history"), message, "set it to true"


def _counted(policy: FairnessPolicy) -> bool:
    """Whether participation is counted by period."""
    limits = (policy.min_participation_per_period or None, policy.max_participation_per_period)
    return policy.enabled and any(limit is not None for limit in limits)


def _needs_history(selector: Selector) -> bool:
    policy, black, how = selector.fairness_policy, selector.blacklist, selector.selection_algorithm
    blocking = black is not None and black.enabled and black.auto_blacklist_criteria is not None
    scored = how.algorithm == "active_learning" or (
        how.algorithm == "importance_sampling" and how.importance_metric in ("model_contribution", "loss_gradient")
    )
    tail = policy.enabled and policy.ensure_tail_participation
    return _counted(policy) or tail or blocking or scored


def _lists(selector: Selector) -> Iterator[Finding]:
    grey = selector.greylist
    if grey is not None and grey.enabled and grey.client_ids and grey.deprioritization_factor is None:
        yield "selector", ("greylist",), "deprioritization_factor is missing", "0.5 halves a client's weight"


def _weights(selector: Selector, fleet: Fleet) -> Iterator[Finding]:
    how = selector.selection_algorithm
    if how.algorithm != "weighted_random":
        return
    if not how.sampling_weights:
        hint = "write sampling_weights: {data_samples: 1.0}, or {COLUMN: {VALUE: WEIGHT}}"
        yield "selector", (_HOW,), "weighted_random has no sampling_weights", hint
    for column, weight in (how.sampling_weights or {}).items():
        at = (_HOW, "sampling_weights", column)
        if column not in fleet.attributes:
            continue  # reported by the specs' checks
        if not isinstance(weight, dict) and not _numeric(fleet, column):
            message = f"one weight for all of {column}, which is no column of numbers"
            yield "selector", at, message, f"give each value its weight: {column}: {{VALUE: WEIGHT}}"
        known = {word_of(value) for value in fleet.attributes[column]}
        for value in sorted(set(weight) - known) if isinstance(weight, dict) else ():
            yield "selector", (*at, value), f"no client of the fleet has {column} {value!r}", None


def _poisson(bundle: JobBundle) -> Iterator[Finding]:
    """Poisson draws are independent of each other; whatever fits a cohort to a shape makes them dependent."""
    selector, job = bundle.selector, bundle.job
    hint = "write algorithm: random, or leave it out; privacy is then accounted without amplification by sampling"
    if selector is None:
        if job.orchestration.client_selection.fairness_policy is not None:
            message = "fairness does not go with poisson, which draws each client on its own"
            yield "job", (*_JOB, "fairness_policy"), message, hint
        return
    if selector.selection_algorithm.stratify_by:
        message = "stratify_by does not go with poisson, which draws each client on its own"
        yield "selector", (_HOW, "stratify_by"), message, hint
    policy = selector.fairness_policy
    if _counted(policy) or (policy.enabled and (parity_of(policy) or policy.ensure_tail_participation)):
        message = "fairness_policy does not go with poisson, which draws each client on its own"
        yield "selector", ("fairness_policy",), message, hint


def history_notes(bundle: JobBundle) -> Iterator[str]:
    """What a selector wants of earlier rounds and a run of this job does not act upon."""
    selector, job = bundle.selector, bundle.job
    if selector is None:
        return
    if job.kind != "train":
        if _needs_history(selector):
            what = "what the selector reads of it does not count"
            yield f"a job of kind {job.kind} keeps no participation history: {what}"
        return
    rules = selector.blacklist.auto_blacklist_criteria if selector.blacklist and selector.blacklist.enabled else None
    checks = {check.name for check in checks_of(job)}
    for name, finders in _FINDERS.items():
        if rules is not None and getattr(rules, name) and not checks & finders:
            yield f"{name} shuts nobody out: the job has no check {' or '.join(sorted(finders))}"


def _numeric(fleet: Fleet, column: str) -> bool:
    """Whether the fleet has such a column and its known values are numbers."""
    values = fleet.attributes.get(column)
    if values is None:
        return False
    known = next((value for value in values if value is not None), 0)
    return isinstance(known, int | float) and not isinstance(known, bool)
