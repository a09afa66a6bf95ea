"""How a job's aggregation becomes what the steps read."""

from __future__ import annotations

from fedloom.specs.checks_aggregation import SERVER_OPTIMIZERS
from fedloom.specs.job import Job
from fedloom.specs.job_aggregation import QualityCheck
from fedloom.tasks.recipe import (
    AggregationRecipe,
    CheckRecipe,
    RobustRecipe,
    ServerOptimizerRecipe,
    StalenessRecipe,
)

_TRIM_RATIO = 0.1
_MOMENTUM, _BETA2, _TAU = 0.9, 0.99, 0.001
"""What Reddi et al. 2021, "Adaptive federated optimization", fix in their experiments."""
_ADAPTIVE_RATE = 0.1
"""They search for the step size; this is in the middle of what they find."""


def aggregation_recipe(job: Job) -> AggregationRecipe:
    """How updates become the next model."""
    asked, own = job.orchestration.aggregation, job.aggregation
    weighting = own.weighting if own is not None else None
    bounds = weighting.clip_weights if weighting is not None else None
    bounds = bounds if bounds is not None and bounds.enabled else None
    low, high = (bounds.min_weight, bounds.max_weight) if bounds is not None else (None, None)
    return AggregationRecipe(
        weights=job.weights,
        quorum=quorum_of(job),
        weight_column=asked.weight_column,
        normalize=weighting is None or weighting.normalize,
        share_min=0.0 if low is None else low,
        share_max=1.0 if high is None else high,
        robust=robust_recipe(job),
        checks=tuple(_check(check) for check in checks_of(job)),
        staleness=_staleness(job),
        server=_server(job),
    )


def quorum_of(job: Job) -> int:
    """Updates below which a round does not count."""
    return job.orchestration.quorum


def checks_of(job: Job) -> tuple[QualityCheck, ...]:
    """The checks that updates must pass; none where they are not enabled."""
    own = job.aggregation.quality_checks if job.aggregation is not None else None
    return own.checks if own is not None and own.enabled else ()


def robust_recipe(job: Job) -> RobustRecipe | None:
    """The rule that withstands hostile updates, as a job asks for it."""
    method = job.robust_method
    if method is None:
        return None
    settings = job.aggregation.byzantine_robust if job.aggregation is not None else None
    krum = settings.krum_config if settings is not None else None
    trimmed = settings.trimmed_mean_config if settings is not None else None
    return RobustRecipe(
        method=method,
        hostile=krum.exclude_furthest if krum is not None else None,
        closest=krum.num_closest if krum is not None else None,
        trim_ratio=trimmed.trim_ratio if trimmed is not None else _TRIM_RATIO,
    )


def _check(check: QualityCheck) -> CheckRecipe:
    limit = check.min_improvement if check.name == "loss_improvement" else check.threshold
    assert limit is not None, "a check without its limit is refused before"
    metric = (check.metric or "l2") if check.name == "parameter_distance" else ""
    return CheckRecipe(check.name, metric, limit, check.action)


def _staleness(job: Job) -> StalenessRecipe | None:
    own = job.aggregation.quality_checks if job.aggregation is not None else None
    if own is not None and own.enabled and own.staleness is not None:
        return StalenessRecipe(own.staleness.max_rounds_stale, own.staleness.action)
    limit = job.orchestration.aggregation.staleness_threshold
    return None if limit is None else StalenessRecipe(limit, "exclude")


def _server(job: Job) -> ServerOptimizerRecipe | None:
    training = job.training
    if training.algorithm not in SERVER_OPTIMIZERS:
        return None
    given = training.hyperparameters.server_optimizer
    name = SERVER_OPTIMIZERS[training.algorithm] or (given.name if given is not None else None)
    assert name is not None, "FedOpt without an optimizer is refused before"
    said = given.model_dump(exclude_none=True) if given is not None else {}
    first = said.get("momentum", _MOMENTUM) if name == "SGD" else said.get("beta1", 0.0 if name == "AdaGrad" else 0.9)
    return ServerOptimizerRecipe(
        name=name,
        learning_rate=said.get("learning_rate", 1.0 if name == "SGD" else _ADAPTIVE_RATE),
        beta1=first,
        beta2=said.get("beta2", _BETA2),
        tau=said.get("tau", _TAU),
    )
