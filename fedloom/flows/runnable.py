"""What a run needs and a valid spec may leave out, and settings that do not go together in a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fedloom.flows.judgement import judgement
from fedloom.flows.kinds import kind_lacks
from fedloom.flows.outputs import output_lacks
from fedloom.flows.selection_checks import selection_findings
from fedloom.flows.single_updates import not_combinable
from fedloom.flows.source import source_findings
from fedloom.flows.training_checks import training_findings
from fedloom.specs.bundle import JobBundle
from fedloom.specs.contract import DataContract, signal_catalog
from fedloom.specs.job import Job
from fedloom.specs.locations import parse_location
from fedloom.specs.problems import Problem
from fedloom.specs.trails import Trail
from fedloom.tasks.architectures import DEFAULTS

_DERIVED = frozenset({"input_dim", "sequence_length", "num_classes"})
"""Settings that the specs' checks have found equal to what follows from inputs and labels."""

Finding = tuple[str, Trail, str, str | None]


def not_runnable(bundle: JobBundle) -> list[Problem]:
    """Everything that keeps a valid job from being compiled."""
    findings = (
        *_inputs(bundle),
        *_model(bundle.job),
        *selection_findings(bundle),
        *_holdout(bundle),
        *judgement(bundle.job),
        *not_combinable(bundle),
        *source_findings(bundle),
        *training_findings(bundle),
        *kind_lacks(bundle),
        *output_lacks(bundle),
    )
    return [bundle.problem(kind, trail, "error", message, hint) for kind, trail, message, hint in findings]


def signals_of(job: Job, contract: DataContract | None) -> tuple[str, ...]:
    """The signals that a job reads, by name or as a group of its contract."""
    inputs = job.model.input_schema
    if inputs.signals:
        return inputs.signals
    groups = signal_catalog(contract).groups if contract is not None else {}
    return tuple(groups.get(inputs.signal_group or "", ()))


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
