"""The kinds of job besides training: what they need, what they cannot have, and what their steps read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fedloom.flows.evaluation import fairness_columns
from fedloom.specs.bundle import JobBundle
from fedloom.specs.checks_aggregation import SERVER_OPTIMIZERS
from fedloom.specs.job import Job
from fedloom.specs.problems import SpecError
from fedloom.specs.trails import Trail
from fedloom.tasks.metrics import BESIDE, canonical_metric, held_out, of_predictions
from fedloom.tasks.recipe import Bound, EvaluationRecipe, GivenRecipe, MeasuringRecipe

MOST_GROUPS = 100
_SECURE: Trail = ("privacy_config", "secure_aggregation")
_NOISE: Trail = ("privacy_config", "differential_privacy")
_GROUPS: Trail = ("validation_config", "disaggregate_by")
_FAIR: Trail = ("validation_config", "bias_fairness", "disaggregate_by")
_SOURCE: Trail = ("model_config", "model_source")


def kind_unbuilt(job: Job) -> Iterator[tuple[Trail, str]]:
    """What a job of this kind asks for and a run cannot do."""
    private = job.privacy
    if job.kind == "evaluate":
        if private.secure_aggregation.enabled:
            yield _SECURE, "an evaluation under masks is not built: it needs every client's own metrics"
        if private.differential_privacy.enabled:
            yield _NOISE, "an evaluation with noise is not built: the clients' own metrics would be published exactly"
    if job.kind == "aggregate":
        if private.secure_aggregation.enabled:
            yield _SECURE, "masks around given updates are not built: whoever gives them has shown them already"
        if private.differential_privacy.enabled:
            yield _NOISE, "noise on given updates is not built: nobody knows how their clients were drawn"
    if job.kind != "evaluate":
        for i, metric in enumerate(job.validation.metrics):
            if metric.aggregation is not None:
                yield (
                    ("validation_config", "metrics", i, "aggregation"),
                    f"a job of kind {job.kind} measures its model on the holdout alone; "
                    "write an evaluate job that measures the released model at the clients",
                )


def kind_lacks(bundle: JobBundle) -> Iterator[tuple[str, Trail, str, str | None]]:
    """What keeps a valid job of this kind from being compiled."""
    job = bundle.job
    if job.kind == "train":
        return
    if job.model.model_source is None:
        what = "measures a trained model" if job.kind == "evaluate" else "adds the updates to a model"
        hint = "write model_source: a .safetensors file of the job folder, champion:JOB_ID, run:RUN_ID or a URL"
        yield "job", _SOURCE, f"is missing: a job of kind {job.kind} {what}", hint
    if job.kind == "evaluate" and job.model.model_source == "champion":
        hint = "write champion:JOB_ID, the job that trained it"
        yield "job", _SOURCE, "an evaluation has no champion of its own", hint
    if job.kind == "aggregate" and job.training.algorithm == "SCAFFOLD":
        at: Trail = ("training_config", "algorithm")
        yield "job", at, "given updates have no control variates, which SCAFFOLD needs", "write FedAvg"
    if job.kind == "evaluate":
        if job.orchestration.aggregation.weights not in ("num_samples", "uniform"):
            at = ("orchestration_config", "aggregation", "weights")
            yield "job", at, "an evaluation weighs clients by num_samples or uniform", None
        if job.aggregation is not None:
            yield "job", ("aggregation_config",), "an evaluation has no updates to aggregate", "leave the section out"
        yield from _columns(bundle)


def _columns(bundle: JobBundle) -> Iterator[tuple[str, Trail, str, str | None]]:
    """Groups are formed by fleet columns, and are few: a group of one client for each would tell nothing more."""
    fleet, asked = bundle.fleet, bundle.job.validation
    if fleet is None:
        return
    places: list[tuple[Trail, str]] = [((*_GROUPS, i), name) for i, name in enumerate(asked.disaggregate_by)]
    if asked.bias_fairness is not None and asked.bias_fairness.enabled:
        places += [((*_FAIR, i), name) for i, name in enumerate(asked.bias_fairness.disaggregate_by)]
    for at, column in places:
        if column not in fleet.attributes:
            has = ", ".join(fleet.attributes) or "none"
            yield "job", at, f"the fleet has no column {column!r}", f"its columns: {has}"
        elif (count := len(set(fleet.attributes[column]))) > MOST_GROUPS:
            hint = "write ranges into a column of their own, such as young and old"
            yield "job", at, f"column {column!r} has {count:,} values, more than {MOST_GROUPS} groups", hint


def kind_notes(job: Job) -> list[str]:
    """What a job of this kind says and a run does not act upon."""
    if job.kind == "evaluate":
        found = ["the job trains nothing and has one round: of training_config only the loss and the seed count"]
        if job.versioning is not None or job.deployment is not None:
            found.append("an evaluation releases no model: versions and deployment do not count")
        return found
    if job.kind == "aggregate":
        found = ["the job trains nothing and has one round: of training_config only the loss and the seed count"]
        if job.training.algorithm in SERVER_OPTIMIZERS:
            found = [f"{found[0]}, and the server's optimizer, which begins anew in each run"]
        if job.orchestration.timing is not None:
            found.append("a run combines the updates that are there when it starts, whatever timing says of waiting")
        who = "every eligible client that gave an update takes part"
        return [*found, f"{who}: nobody is drawn, and max_clients does not count"]
    return []


def rounds_of(bundle: JobBundle, replaced: int | None) -> int:
    """Rounds of a job; those that train nothing have one.

    Raises:
        SpecError: when they are told to have more.
    """
    job = bundle.job
    if job.kind == "train":
        return job.training.global_training.num_rounds if replaced is None else replaced
    if replaced is not None and replaced != 1:
        at: Trail = ("job_metadata", "kind")
        raise SpecError([bundle.problem("job", at, "error", f"a job of kind {job.kind} has one round, not {replaced}")])
    return 1


def measuring_recipe(job: Job, evaluation: EvaluationRecipe) -> MeasuringRecipe | None:
    """What the clients of an evaluation measure; None for the other kinds."""
    if job.kind != "evaluate":
        return None
    asked = {canonical_metric(metric.name): metric.aggregation for metric in job.validation.metrics}
    combine = tuple((name, asked.get(name) or "weighted_average") for name in of_predictions(evaluation.metrics))
    return MeasuringRecipe(combine, tuple(dict.fromkeys((*job.validation.disaggregate_by, *fairness_columns(job)))))


def judged_twice(job: Job, evaluation: EvaluationRecipe) -> EvaluationRecipe:
    """In an evaluation, the clients' values must keep the limits, and so must the holdout's where there is one."""
    if job.kind != "evaluate" or evaluation.holdout is None:
        return evaluation
    bounds = tuple(
        Bound(f"{bound.name} on the holdout", held_out(bound.metric), bound.minimum, bound.maximum)
        for bound in evaluation.bounds
        if bound.metric not in BESIDE
    )
    return replace(evaluation, bounds=(*evaluation.bounds, *bounds))


def given_recipe(job: Job) -> GivenRecipe | None:
    """The updates that an aggregate job combines; None for the other kinds."""
    if job.kind != "aggregate" or job.aggregation is None or job.aggregation.updates is None:
        return None
    return GivenRecipe(job.aggregation.updates)


def increment_of(job: Job) -> str | None:
    """The part of a model's version that grows when it is released; None where versions are written by hand."""
    versions = job.versioning
    return versions.increment if versions is not None and versions.auto_version and job.kind != "evaluate" else None
