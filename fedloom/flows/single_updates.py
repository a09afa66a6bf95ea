"""Aggregation that a valid spec may ask for and a run cannot carry out: bounds of rules, and what privacy forbids."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.flows.aggregation import checks_of, quorum_of, robust_recipe
from fedloom.specs.bundle import JobBundle
from fedloom.specs.job import Job
from fedloom.specs.trails import Trail
from fedloom.tasks.aggregation.bounds import too_few

Finding = tuple[str, Trail, str, str | None]

_OWN: Trail = ("aggregation_config",)
_ROUND: Trail = ("orchestration_config", "aggregation")
_SECURE: Trail = ("privacy_config", "secure_aggregation")
_PRIVATE: Trail = ("privacy_config", "differential_privacy")


def not_combinable(bundle: JobBundle) -> Iterator[Finding]:
    """What keeps a job's updates from being combined as it asks."""
    job = bundle.job
    yield from _weight_column(bundle)
    yield from _shares(job)
    yield from _unsaid(job)
    rule = robust_recipe(job)
    objection = too_few(rule, quorum_of(job)) if rule is not None else None
    if objection is not None:
        hint = "raise min_quorum (and min_clients), or assume fewer hostile updates"
        yield "job", _rule_at(job), f"{objection}, in a round that just has its quorum", hint
    for at, what, leaks in _needing_single_updates(job):
        yield from _against_privacy(job, at, what, leaks)


def _needing_single_updates(job: Job) -> Iterator[tuple[Trail, str, bool]]:
    """Where, what, and whether it looks at losses, which noise in training does not cover."""
    own = job.aggregation
    if job.robust_method is not None:
        yield _rule_at(job), job.robust_method, False
    for index, check in enumerate(checks_of(job)):
        yield (*_OWN, "quality_checks", "checks", index), f"the check {check.name}", check.name == "loss_improvement"
    if job.weights in ("loss_based", "contribution"):
        yield (*_OWN, "weighting", "strategy"), f"weights {job.weights}", job.weights == "loss_based"
    if _bounds(job) != (0.0, 1.0) and own is not None:
        yield (*_OWN, "weighting", "clip_weights"), "clip_weights", False


def _against_privacy(job: Job, at: Trail, what: str, leaks: bool) -> Iterator[Finding]:
    private = job.privacy.differential_privacy
    if job.privacy.secure_aggregation.enabled:
        message = f"{what} needs the updates of single clients, and secure aggregation shows the server their sum alone"
        yield "job", at, message, "disable privacy_config.secure_aggregation, or leave this out"
    if private.enabled and private.mechanism == "DP-FedAvg":
        message = f"{what} lets one client's update move the result by more than the noise of DP-FedAvg is made for"
        yield "job", at, message, "use DP-SGD, whose noise is in every update already, or leave this out"
    elif private.enabled and leaks:
        yield "job", at, f"{what} looks at losses of single clients, which have no noise", "leave it out"


def _rule_at(job: Job) -> Trail:
    own = job.aggregation
    if own is not None and own.byzantine_robust is not None and own.byzantine_robust.enabled:
        return (*_OWN, "byzantine_robust", "method")
    return (*_OWN, "algorithm")


def _bounds(job: Job) -> tuple[float, float]:
    weighting = job.aggregation.weighting if job.aggregation is not None else None
    bounds = weighting.clip_weights if weighting is not None else None
    if bounds is None or not bounds.enabled:
        return 0.0, 1.0
    low, high = bounds.min_weight, bounds.max_weight
    return 0.0 if low is None else low, 1.0 if high is None else high


def _shares(job: Job) -> Iterator[Finding]:
    (low, high), quorum, most = _bounds(job), quorum_of(job), job.orchestration.max_clients
    at = (*_OWN, "weighting", "clip_weights")
    if low * most > 1 + 1e-12:
        message = f"{most} clients (max_clients) with at least {low:g} each are more than the whole"
        yield "job", (*at, "min_weight"), message, f"write at most {1 / most:.4g}"
    if high * quorum < 1 - 1e-12:
        message = f"{quorum} clients (the quorum) with at most {high:g} each are less than the whole"
        yield "job", (*at, "max_weight"), message, f"write at least {1 / quorum:.4g}, or raise min_quorum"
    weighting = job.aggregation.weighting if job.aggregation is not None else None
    if weighting is not None and not weighting.normalize and (job.weights != "custom" or job.robust_method is not None):
        what = f"weights {job.weights}" if job.robust_method is None else job.robust_method
        hint = "write normalize: true, or custom weights that are shares"
        message = f"{what} cannot go without: the step would grow with the number of clients or windows"
        yield "job", (*_OWN, "weighting", "normalize"), message, hint


def _weight_column(bundle: JobBundle) -> Iterator[Finding]:
    column, fleet = bundle.job.orchestration.aggregation.weight_column, bundle.fleet
    if column is None or fleet is None:
        return
    at = (*_ROUND, "weight_column")
    if column not in fleet.attributes:
        has = ", ".join(fleet.attributes) or "none"
        yield "job", at, f"the fleet has no column {column!r}", f"its columns: {has}"
        return
    values = dict(zip(fleet.clients, fleet.attributes[column], strict=True))
    wrong = [client for client, value in values.items() if not isinstance(value, int | float) or not 0 <= value < 1e15]
    if wrong:
        shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        yield "job", at, f"column {column!r} has no weight (0 to 1e15) for {shown}", None
    elif not any(isinstance(value, int | float) and value > 0 for value in values.values()):
        yield "job", at, f"column {column!r} gives no client a weight above 0", None


def _unsaid(job: Job) -> Iterator[Finding]:
    """Privacy that aggregation_config asks for and privacy_config does not say, where its steps read it."""
    own = job.aggregation
    for name, at in (("differential_privacy", _PRIVATE), ("secure_aggregation", _SECURE)):
        here, there = getattr(own, name, None), getattr(job.privacy, name)
        if here is None or not there.enabled:
            continue
        for key in sorted(here.model_fields_set - there.model_fields_set):
            message = f"says {getattr(here, key)}, and {'.'.join(map(str, at))} says nothing of it"
            yield "job", (*_OWN, name, key), message, "write it there"
