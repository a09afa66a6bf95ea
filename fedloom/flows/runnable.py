"""What a run needs and a valid spec may leave out, and settings that do not go together in a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fedloom.flows.judgement import judgement
from fedloom.specs.bundle import JobBundle
from fedloom.specs.contract import DataContract, signal_catalog
from fedloom.specs.criteria import Criterion, criteria, eligibility_tests
from fedloom.specs.job import Job
from fedloom.specs.locations import parse_location
from fedloom.specs.problems import Problem
from fedloom.specs.selector import EligibilityCriteria
from fedloom.specs.trails import Trail
from fedloom.tasks.architectures import DEFAULTS

_DERIVED = frozenset({"input_dim", "sequence_length", "num_classes"})
"""Settings that the specs' checks have found equal to what follows from inputs and labels."""

Finding = tuple[str, Trail, str, str | None]


def not_runnable(bundle: JobBundle) -> list[Problem]:
    """Everything that keeps a valid job from being compiled."""
    findings = (*_inputs(bundle), *_model(bundle.job), *_clients(bundle), *_holdout(bundle), *judgement(bundle.job))
    return [bundle.problem(kind, trail, "error", message, hint) for kind, trail, message, hint in findings]


def signals_of(job: Job, contract: DataContract | None) -> tuple[str, ...]:
    """The signals that a job reads, by name or as a group of its contract."""
    inputs = job.model.input_schema
    if inputs.signals:
        return inputs.signals
    groups = signal_catalog(contract).groups if contract is not None else {}
    return tuple(groups.get(inputs.signal_group or "", ()))


def own_criteria(job: Job) -> tuple[Criterion, ...]:
    """The criteria inside the job, which count when there is no selector."""
    asked = job.orchestration.client_selection.eligibility_criteria
    given = asked.model_dump(exclude_none=True) if asked is not None else {}
    tests = eligibility_tests(EligibilityCriteria.model_validate({"min_data_samples": 1, **given}))
    return tuple(test for test in tests if test.path.split(".")[1] in given)


def _inputs(bundle: JobBundle) -> Iterator[Finding]:
    inputs, at = bundle.job.model.input_schema, ("model_config", "input_schema")
    if inputs.signal_group is None and not inputs.signals:  # an unknown group is reported by the specs' checks
        hint = "name them under signals, or a signal group of the contract"
        yield "job", at, "the job names no signals to read", hint


def _model(job: Job) -> Iterator[Finding]:
    model, output = job.model, job.model.output_schema
    settings, at = model.model_hyperparameters, ("model_config", "model_hyperparameters")
    known = DEFAULTS.get(model.architecture)
    for name in settings.model_dump(exclude_none=True) if known is not None else ():
        if known is not None and name not in known and name not in _DERIVED:
            yield "job", (*at, name), f"{name} is no setting of {model.architecture}", f"it has {', '.join(known)}"
    if model.architecture == "Autoencoder" and output.type != "reconstruction_error":
        hint = "use output type reconstruction_error, or another architecture"
        yield "job", ("model_config", "output_schema", "type"), f"an Autoencoder gives no {output.type}", hint
    if output.type == "multi_class" and not output.labels and settings.num_classes is None:
        yield "job", ("model_config", "output_schema"), "the number of classes is unknown", "add labels: [0, 1, 2, …]"
    if output.type != "multi_class" and settings.num_classes not in (None, 2):
        yield "job", (*at, "num_classes"), f"{settings.num_classes} classes do not go with {output.type}", None


def _clients(bundle: JobBundle) -> Iterator[Finding]:
    job, fleet, selector = bundle.job, bundle.fleet, bundle.selector
    chosen, at = job.orchestration.client_selection, ("orchestration_config", "client_selection")
    if fleet is None:
        yield "job", (), "the job has no fleet to run on", "add a fleet.yaml, fleet.csv or fleet.parquet"
        return
    if selector is not None:
        hint = "say it in one place"
        if chosen.eligibility_criteria is not None:
            yield "job", (*at, "eligibility_criteria"), "the selector has eligibility criteria too", hint
        if chosen.target_clients not in (None, selector.selection_algorithm.num_clients):
            yield "job", (*at, "target_clients"), "the selector's num_clients is another number", hint
        grey = selector.greylist
        if grey is not None and grey.enabled and grey.client_ids and grey.deprioritization_factor is None:
            yield "selector", ("greylist",), "deprioritization_factor is missing", "0.5 halves a client's weight"
    tests = criteria(selector) if selector is not None else own_criteria(job)
    columns = {test.column: test.path for test in tests}
    algorithm = selector.selection_algorithm.algorithm if selector is not None else chosen.algorithm
    if algorithm == "importance_sampling":
        columns.setdefault("data_samples", "importance_sampling")
    for column, asked in columns.items():
        if column not in fleet.attributes:
            has = ", ".join(fleet.attributes) or "none"
            yield "job", at, f"the fleet has no column {column!r}, which {asked} reads", f"its columns: {has}"


def _is_client_data(bundle: JobBundle, source: str) -> bool:
    fleet = bundle.fleet
    try:
        own = _absolute(source, bundle.folder)
    except ValueError:  # reported by the specs' checks
        return False
    return fleet is not None and any(_absolute(place, fleet.root) == own for place in fleet.data)


def _absolute(place: str, root: Path) -> str:
    """One spelling for one place, however it was written."""
    location = parse_location(place)
    return os.path.abspath(root / location.path) if location.kind == "file" else str(location)


def _holdout(bundle: JobBundle) -> Iterator[Finding]:
    holdout, at = bundle.job.validation.holdout_dataset, ("validation_config", "holdout_dataset")
    if holdout is not None and holdout.source is None:
        yield "job", at, "the holdout has no source", "add source: where the held-out data lies"
    if holdout is not None and holdout.source is not None and _is_client_data(bundle, holdout.source):
        yield "job", (*at, "source"), "the holdout is a client's data: it must be data that no client trains on", None
    stopping = bundle.job.training.global_training.early_stopping
    if holdout is None and stopping is not None and stopping.enabled:
        trail = ("training_config", "global_training", "early_stopping")
        yield "job", trail, "early stopping watches a metric, and there is no holdout to measure it on", None
