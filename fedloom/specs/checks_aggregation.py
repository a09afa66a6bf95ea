"""What a job says of aggregation: places that may say the same agree, and settings belong to what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedloom.specs.explain import closest
from fedloom.specs.job_aggregation import ROBUST_ALGORITHMS, QualityCheck
from fedloom.specs.problems import Problem
from fedloom.specs.trails import Trail, dotted

if TYPE_CHECKING:
    from fedloom.specs.bundle import JobBundle

_OWN: Trail = ("aggregation_config",)
_ROUND: Trail = ("orchestration_config", "aggregation")
_SERVER: Trail = ("training_config", "hyperparameters", "server_optimizer")
CHECKS = {
    "gradient_norm": ("exclude", "clip", "flag"),
    "parameter_distance": ("exclude", "clip", "flag"),
    "loss_improvement": ("exclude", "flag"),
    "data_poisoning_score": ("exclude", "flag"),
}
"""Checks of updates, and the actions that each can take."""
METRICS = ("l2", "l1", "linf", "cosine")
SERVER_OPTIMIZERS = {"FedOpt": None, "FedAdam": "Adam", "FedYogi": "Yogi"}
"""Algorithms with an optimizer at the server, and the one that the name says."""
_SERVER_KEYS = {
    "SGD": {"momentum"},
    "AdaGrad": {"beta1", "tau"},
    "Adam": {"beta1", "beta2", "tau"},
    "Yogi": {"beta1", "beta2", "tau"},
}


def agreement(bundle: JobBundle) -> Iterator[Problem]:
    """aggregation_config says nothing else than training_config, orchestration_config and privacy_config."""
    job = bundle.job
    own, asked = job.aggregation, job.orchestration.aggregation
    if own is None:
        return
    if own.algorithm not in (None, job.training.algorithm, *ROBUST_ALGORITHMS):
        yield from _differ(
            bundle, (*_OWN, "algorithm"), own.algorithm, ("training_config", "algorithm"), job.training.algorithm
        )
    weighting = own.weighting
    if weighting is not None and {"strategy"} & weighting.model_fields_set and "weights" in asked.model_fields_set:
        at = (*_OWN, "weighting", "strategy")
        yield from _differ(bundle, at, weighting.strategy, (*_ROUND, "weights"), asked.weights)
    staleness = own.quality_checks.staleness if own.quality_checks is not None else None
    if staleness is not None and asked.staleness_threshold is not None:
        at = (*_OWN, "quality_checks", "staleness", "max_rounds_stale")
        yield from _differ(
            bundle, at, staleness.max_rounds_stale, (*_ROUND, "staleness_threshold"), asked.staleness_threshold
        )
    for name in ("differential_privacy", "secure_aggregation"):
        here, there = getattr(own, name), getattr(job.privacy, name)
        for key in sorted(here.model_fields_set & there.model_fields_set) if here is not None else ():
            at = (*_OWN, name, key)
            yield from _differ(bundle, at, getattr(here, key), ("privacy_config", name, key), getattr(there, key))


def robustness(bundle: JobBundle) -> Iterator[Problem]:
    """A robust rule is named, and in one way."""
    own = bundle.job.aggregation
    if own is None or own.byzantine_robust is None:
        return
    rule, at = own.byzantine_robust, (*_OWN, "byzantine_robust")
    if rule.enabled and rule.method is None:
        yield bundle.problem("job", (*at, "method"), "error", "is missing", "write for example method: median")
    named = ROBUST_ALGORITHMS.get(own.algorithm or "")
    if named is not None and (not rule.enabled or rule.method not in (None, named)):
        says = f"method is {rule.method}" if rule.enabled else "byzantine_robust is not enabled"
        place = (*at, "method" if rule.enabled else "enabled")
        yield from _both(bundle, (*_OWN, "algorithm"), f"is {own.algorithm}, but {says}", place)


def quality_checks(bundle: JobBundle) -> Iterator[Problem]:
    """Checks of updates are known, have the numbers that they need, and can do what they should."""
    own = bundle.job.aggregation
    if own is None or own.quality_checks is None:
        return
    for index, check in enumerate(own.quality_checks.checks):
        at = (*_OWN, "quality_checks", "checks", index)
        if check.name not in CHECKS:
            best = closest(check.name, tuple(CHECKS))
            hint = f"did you mean '{best}'?" if best else f"there are {', '.join(CHECKS)}"
            message = f"there is no check '{check.name}' of updates; known are {', '.join(CHECKS)}"
            yield bundle.problem("job", (*at, "name"), "error", message, hint)
            continue
        for key, wrong, instead in _check(check):
            yield bundle.problem("job", (*at, key), "error", wrong, instead)


def _check(check: QualityCheck) -> Iterator[tuple[str, str, str | None]]:
    needed = "min_improvement" if check.name == "loss_improvement" else "threshold"
    for key in ("threshold", "min_improvement", "metric"):
        given = getattr(check, key) is not None
        if key == needed and not given:
            yield key, f"is missing: {check.name} needs it", None
        elif given and key not in (needed, "metric" if check.name == "parameter_distance" else needed):
            yield key, f"{check.name} has no {key}", f"it takes {needed}"
    if check.action not in CHECKS[check.name]:
        yield "action", f"{check.name} cannot {check.action} an update", f"write {' or '.join(CHECKS[check.name])}"
    if check.name == "data_poisoning_score" and (check.threshold or 0) >= 1:
        yield "threshold", f"{check.threshold:g} is never exceeded: the score is below 1", "write for example 0.8"
    if check.name == "parameter_distance" and check.metric is not None:
        if check.metric not in METRICS:
            yield "metric", f"there is no distance '{check.metric}'", f"there are {', '.join(METRICS)}"
        elif check.metric == "cosine" and check.action == "clip":
            yield "action", "a cosine distance cannot be clipped: an angle has no length", "write exclude or flag"


def server_optimizer(bundle: JobBundle) -> Iterator[Problem]:
    """FedOpt and its kin have an optimizer at the server, the others have none."""
    training = bundle.job.training
    given, algorithm = training.hyperparameters.server_optimizer, training.algorithm
    if algorithm == "FedOpt" and (given is None or given.name is None):
        at = _SERVER if given is None else (*_SERVER, "name")
        hint = "write for example server_optimizer: {name: SGD, momentum: 0.9}"
        yield bundle.problem("job", at, "error", "is missing: FedOpt needs to know the server's optimizer", hint)
    if given is None:
        return
    if algorithm not in SERVER_OPTIMIZERS:
        message = f"the algorithm {algorithm} has no optimizer at the server"
        yield bundle.problem("job", _SERVER, "error", message, "remove it, or write algorithm: FedOpt")
        return
    named = SERVER_OPTIMIZERS[algorithm]
    if named is not None and given.name not in (None, named):
        message = f"is {given.name}, but the algorithm is {algorithm}"
        yield bundle.problem("job", (*_SERVER, "name"), "error", message, "remove it, or write algorithm: FedOpt")
        return
    name = named or given.name
    if name is None:
        return
    allowed = _SERVER_KEYS[name] | {"name", "learning_rate"}
    for key in sorted(given.model_fields_set - allowed):
        hint = f"it has {', '.join(sorted(allowed - {'name'}))}"
        yield bundle.problem("job", (*_SERVER, key), "error", f"{name} has no setting {key}", hint)


def custom_weights(bundle: JobBundle) -> Iterator[Problem]:
    """Custom weights name their column; no other weights do."""
    job = bundle.job
    column, at = job.orchestration.aggregation.weight_column, (*_ROUND, "weight_column")
    if job.weights == "custom" and column is None:
        yield bundle.problem("job", at, "error", "is missing: custom weights are a column of the fleet")
    if job.weights != "custom" and column is not None:
        yield bundle.problem(
            "job", at, "error", f"is given, but the weights are {job.weights}", "write weights: custom"
        )


def _differ(bundle: JobBundle, at: Trail, here: Any, other: Trail, there: Any) -> Iterator[Problem]:
    """An error at both places where they say different things."""
    if here != there:
        yield from _both(bundle, at, f"is {here}, but {dotted(other)} is {there}", other)


def _both(bundle: JobBundle, at: Trail, message: str, other: Trail) -> Iterator[Problem]:
    yield bundle.problem("job", at, "error", message, "make the two agree")
    yield bundle.problem("job", other, "error", f"does not agree with {dotted(at)}", "make the two agree")


AGGREGATION_CHECKS = (agreement, robustness, quality_checks, server_optimizer, custom_weights)
