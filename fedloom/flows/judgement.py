"""Settings of a job's validation that need others, or do not go together."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.flows.evaluation import fairness_columns, held_out_columns
from fedloom.specs.job import Job
from fedloom.specs.job_release import ValidationSpec
from fedloom.specs.trails import Trail
from fedloom.tasks.metrics import BESIDE, DRIFT, LATENCY, canonical_metric

Finding = tuple[str, Trail, str, str | None]

_AT = "validation_config"


def judgement(job: Job) -> Iterator[Finding]:
    """What keeps a model from being judged as the job says."""
    asked = job.validation
    yield from _without_holdout(job)
    yield from _metrics(job)
    yield from _fairness(job)
    yield from _drift(asked)
    label, columns = job.model.output_schema.label_column, (*held_out_columns(job), *fairness_columns(job))
    if label in columns and job.kind != "evaluate":
        yield "job", (_AT,), f"groups are formed by {label!r}, the label: within a group it says nothing", None


def _without_holdout(job: Job) -> Iterator[Finding]:
    asked = job.validation
    if asked.holdout_dataset is not None:
        return
    sections = {
        "disaggregate_by": bool(held_out_columns(job)),
        "bias_fairness": job.kind != "evaluate" and asked.bias_fairness is not None and asked.bias_fairness.enabled,
        "drift_detection": asked.drift_detection is not None and asked.drift_detection.enabled,
        "robustness": asked.robustness is not None,
        "confidence": asked.confidence is not None,
        "champion_margin": asked.champion_margin is not None,
    }
    for name in (name for name, given in sections.items() if given):
        yield "job", (_AT, name), "is about held-out data, and the job has none", "add holdout_dataset: {source: …}"


def _metrics(job: Job) -> Iterator[Finding]:
    asked = job.validation
    names = [canonical_metric(metric.name) for metric in asked.metrics]
    if names and names[0] in BESIDE:
        hint = "name one of the model's predictions first, such as auc or accuracy"
        message = f"{names[0]} comes first, and models and groups are compared in the first metric"
        yield "job", (_AT, "metrics", 0, "name"), message, hint
    drifting = asked.drift_detection is not None and asked.drift_detection.enabled
    places: list[tuple[Trail, str]] = [((_AT, "metrics", i, "name"), name) for i, name in enumerate(names)]
    places += [((_AT, "thresholds", name), canonical_metric(name)) for name in asked.thresholds]
    for trail, name in places:
        if name in DRIFT and not drifting:
            yield "job", trail, f"{name} needs a baseline to drift from", "enable drift_detection"
    stopping = job.training.global_training.early_stopping
    watched = canonical_metric(stopping.metric) if stopping is not None and stopping.metric else ""
    if stopping is not None and stopping.enabled and watched in BESIDE:
        trail = ("training_config", "global_training", "early_stopping", "metric")
        kind = "measured at the end of a run only" if watched in LATENCY else "the same in every round"
        yield "job", trail, f"{watched} is {kind}: training cannot stop on it", None


def _fairness(job: Job) -> Iterator[Finding]:
    rule, at = job.validation.bias_fairness, (_AT, "bias_fairness")
    if rule is None or not rule.enabled:
        return
    if not fairness_columns(job):
        yield "job", at, "no columns form the groups to compare", "add disaggregate_by: [column, …]"
    if rule.fairness_threshold is None:
        yield "job", at, "fairness_threshold is missing", "0.1 allows a gap of 0.1 in the first metric"


def _drift(asked: ValidationSpec) -> Iterator[Finding]:
    rule, at = asked.drift_detection, (_AT, "drift_detection")
    if rule is None or not rule.enabled:
        return
    if rule.baseline_distribution is None:
        hint = "make one: fedloom data baseline JOB -o baseline.json; then baseline_distribution: baseline.json"
        yield "job", at, "baseline_distribution is missing: there is nothing to drift from", hint
    if rule.alert_threshold is None:
        yield "job", at, "alert_threshold is missing", "0.2 is usual for PSI, 0.1 for KS"
