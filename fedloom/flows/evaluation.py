"""How a job's validation becomes what the steps read."""

from __future__ import annotations

from fedloom.specs.job import Job
from fedloom.specs.job_release import Bounds, ValidationSpec
from fedloom.tasks.metrics import HIGHER_IS_BETTER, canonical_metric
from fedloom.tasks.recipe import (
    Bound,
    ConfidenceRecipe,
    DriftRecipe,
    EvaluationRecipe,
    GapRecipe,
    RobustnessRecipe,
)

_DEFAULT_METRICS = {
    "binary_classification": ("auc", "accuracy", "precision", "recall", "f1_score"),
    "multi_class": ("accuracy", "f1_score"),
    "regression": ("rmse", "mae", "r2"),
    "reconstruction_error": ("reconstruction_error", "auc"),
}


def evaluation_recipe(job: Job) -> EvaluationRecipe:
    """How a model is judged."""
    asked, output = job.validation, job.model.output_schema
    holdout = asked.holdout_dataset
    stopping = job.training.global_training.early_stopping
    watched = stopping if stopping is not None and stopping.enabled else None
    bounds = [
        _bound(f"target {metric.name}", metric.name, metric.target)
        for metric in asked.metrics
        if metric.target is not None
    ]
    bounds += [_bound(f"threshold {name}", name, value) for name, value in sorted(asked.thresholds.items())]
    names = [canonical_metric(metric.name) for metric in asked.metrics] or _DEFAULT_METRICS[output.type]
    stop_metric = canonical_metric(watched.metric or names[0]) if watched else None
    extra = [bound.metric for bound in bounds] + ([stop_metric] if stop_metric else [])
    return EvaluationRecipe(
        holdout=holdout.source if holdout is not None else None,
        holdout_size=holdout.size if holdout is not None else None,
        stratified=holdout is not None and holdout.stratified,
        metrics=tuple(dict.fromkeys([*names, *extra])),
        bounds=tuple(bounds),
        threshold=0.5 if output.threshold is None else output.threshold,
        stop_metric=stop_metric,
        stop_value=watched.threshold if watched else None,
        patience=watched.patience if watched else None,
        min_delta=watched.min_delta if watched else 0.0,
        stratify_by=holdout.stratify_by if holdout is not None else (),
        groups=_groups(job),
        fairness=_fairness(job),
        drift=_drift(asked),
        robustness=_robustness(asked),
        confidence=_confidence(asked),
        champion_margin=asked.champion_margin,
    )


def held_out_columns(job: Job) -> tuple[str, ...]:
    """Columns of the held-out data that form groups; in an evaluation the groups are of clients, by fleet columns."""
    return () if job.kind == "evaluate" else job.validation.disaggregate_by


def fairness_columns(job: Job) -> tuple[str, ...]:
    """The columns by which groups are compared: those of bias_fairness, or else those of the validation."""
    rule = job.validation.bias_fairness
    if rule is None or not rule.enabled:
        return ()
    return rule.disaggregate_by or job.validation.disaggregate_by


def _groups(job: Job) -> tuple[str, ...]:
    if job.kind == "evaluate":
        return ()
    return tuple(dict.fromkeys((*held_out_columns(job), *fairness_columns(job))))


def _fairness(job: Job) -> GapRecipe | None:
    rule = job.validation.bias_fairness
    if rule is None or not rule.enabled or rule.fairness_threshold is None:
        return None
    return GapRecipe(fairness_columns(job), rule.fairness_threshold)


def _drift(asked: ValidationSpec) -> DriftRecipe | None:
    rule = asked.drift_detection
    if rule is None or not rule.enabled or rule.baseline_distribution is None or rule.alert_threshold is None:
        return None
    return DriftRecipe(rule.method or "PSI", rule.baseline_distribution, rule.alert_threshold)


def _robustness(asked: ValidationSpec) -> RobustnessRecipe | None:
    rule = asked.robustness
    return None if rule is None else RobustnessRecipe(rule.faults, rule.severity, rule.max_drop)


def _confidence(asked: ValidationSpec) -> ConfidenceRecipe | None:
    rule = asked.confidence
    return None if rule is None else ConfidenceRecipe(rule.level, rule.below)


def _bound(name: str, metric: str, value: float | Bounds) -> Bound:
    """A limit; a bare number is a minimum or a maximum, whichever is the metric's good direction."""
    metric = canonical_metric(metric)
    if isinstance(value, Bounds):
        return Bound(name, metric, value.min, value.max)
    if HIGHER_IS_BETTER[metric]:
        return Bound(name, metric, float(value), None)
    return Bound(name, metric, None, float(value))
