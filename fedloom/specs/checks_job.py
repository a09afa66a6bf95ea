"""What a job says, checked against what follows from it and against common sense."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedloom.specs.checks_aggregation import AGGREGATION_CHECKS
from fedloom.specs.checks_kind import kind
from fedloom.specs.locations import parse_location
from fedloom.specs.problems import Problem
from fedloom.specs.trails import Trail

if TYPE_CHECKING:
    from fedloom.specs.bundle import JobBundle

_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_OPTIMIZER_KEYS = {
    "Adam": {"beta1", "beta2", "eps", "weight_decay", "amsgrad"},
    "SGD": {"momentum", "dampening", "weight_decay", "nesterov"},
    "AdaGrad": {"lr_decay", "weight_decay", "initial_accumulator_value", "eps"},
    "RMSprop": {"alpha", "eps", "weight_decay", "momentum", "centered"},
}
_USUAL_RATE = {"Adam": 0.05, "RMSprop": 0.05, "AdaGrad": 0.5, "SGD": 0.5}
_LOSSES = {
    "binary_classification": ("BCEWithLogitsLoss", "BCELoss", "CrossEntropyLoss", "NLLLoss"),
    "multi_class": ("CrossEntropyLoss", "NLLLoss"),
    "regression": ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"),
    "reconstruction_error": ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"),
}
_HYPER: Trail = ("training_config", "hyperparameters")
_MODEL_HYPER: Trail = ("model_config", "model_hyperparameters")


def custom_class(bundle: JobBundle) -> Iterator[Problem]:
    """A Custom model names its class; no other model does."""
    model = bundle.job.model
    at: Trail = ("model_config", "custom_class")
    if model.architecture == "Custom" and model.custom_class is None:
        yield bundle.problem(
            "job", at, "error", "is missing: architecture Custom needs it", "write custom_class: package.module:Class"
        )
    elif model.architecture != "Custom" and model.custom_class is not None:
        yield bundle.problem(
            "job",
            at,
            "error",
            f"is given, but the architecture is {model.architecture}",
            "write architecture: Custom, or remove it",
        )
    elif model.custom_class is not None and not _CLASS.fullmatch(model.custom_class):
        yield bundle.problem("job", at, "error", f"'{model.custom_class}' must have the form package.module:Class")


def model_hyperparameters(bundle: JobBundle) -> Iterator[Problem]:
    """The model's size fits its inputs and outputs; only Custom classes take keys of their own."""
    model = bundle.job.model
    hyper, inputs, outputs = model.model_hyperparameters, model.input_schema, model.output_schema
    for key in (hyper.model_extra or {}) if model.architecture != "Custom" else ():
        from fedloom.specs.explain import closest

        known = list(type(hyper).model_fields)
        best = closest(key, known)
        hint = f"did you mean '{best}'?" if best else f"known keys here: {', '.join(known)}"
        yield bundle.problem("job", (*_MODEL_HYPER, key), "error", f"unknown key '{key}'", hint)
    signals = inputs.signals
    if signals is None and inputs.signal_group is not None and bundle.contract is not None:
        from fedloom.specs.contract import signal_catalog

        signals = signal_catalog(bundle.contract).groups.get(inputs.signal_group)
    if signals is not None and hyper.input_dim not in (None, len(signals)):
        yield bundle.problem(
            "job",
            (*_MODEL_HYPER, "input_dim"),
            "error",
            f"is {hyper.input_dim}, but the model reads {len(signals)} signals",
            f"write {len(signals)} or remove it",
        )
    if inputs.window_size is not None and hyper.sequence_length not in (None, inputs.window_size):
        yield bundle.problem(
            "job",
            (*_MODEL_HYPER, "sequence_length"),
            "error",
            f"is {hyper.sequence_length}, but window_size is {inputs.window_size}",
            "make the two agree",
        )
    if outputs.labels is not None and hyper.num_classes not in (None, len(outputs.labels)):
        yield bundle.problem(
            "job",
            (*_MODEL_HYPER, "num_classes"),
            "error",
            f"is {hyper.num_classes}, but there are {len(outputs.labels)} labels",
        )
    if inputs.window_size is not None and inputs.stride is not None and inputs.stride > inputs.window_size:
        yield bundle.problem(
            "job",
            ("model_config", "input_schema", "stride"),
            "warning",
            f"{inputs.stride} is above window_size ({inputs.window_size}): samples between windows are left out",
        )


def outputs(bundle: JobBundle) -> Iterator[Problem]:
    """Labels and threshold fit the kind of prediction."""
    schema = bundle.job.model.output_schema
    at: Trail = ("model_config", "output_schema")
    classes = schema.type in ("binary_classification", "multi_class")
    if schema.labels is not None:
        if schema.type == "binary_classification" and len(schema.labels) != 2:
            yield bundle.problem(
                "job",
                (*at, "labels"),
                "error",
                f"has {len(schema.labels)} labels, binary_classification has two",
                "use type: multi_class",
            )
        if len({str(label) for label in schema.labels}) < len(schema.labels):
            yield bundle.problem("job", (*at, "labels"), "error", "names a label twice")
        if schema.type == "regression":
            yield bundle.problem("job", (*at, "labels"), "error", "regression has no classes", "remove it")
    if schema.type == "binary_classification" and schema.threshold is not None and not 0 < schema.threshold < 1:
        yield bundle.problem(
            "job", (*at, "threshold"), "error", f"{schema.threshold:g} must be between 0 and 1: it is a probability"
        )
    weights = bundle.job.training.hyperparameters.class_weights
    count = len(schema.labels) if schema.labels is not None else 2 if schema.type == "binary_classification" else None
    if weights is not None and not classes:
        yield bundle.problem("job", (*_HYPER, "class_weights"), "error", f"{schema.type} has no classes")
    elif weights is not None and count is not None and len(weights) != count:
        yield bundle.problem(
            "job", (*_HYPER, "class_weights"), "error", f"has {len(weights)} weights for {count} labels"
        )


def training(bundle: JobBundle) -> Iterator[Problem]:
    """Hyperparameters go with the algorithm, the optimizer and the output."""
    spec = bundle.job.training
    hyper = spec.hyperparameters
    if hyper.mu is not None and spec.algorithm != "FedProx":
        yield bundle.problem(
            "job",
            (*_HYPER, "mu"),
            "error",
            f"only FedProx has a proximal term, the algorithm is {spec.algorithm}",
            "remove it, or write algorithm: FedProx",
        )
    if spec.algorithm == "FedProx" and not hyper.mu:
        yield bundle.problem(
            "job", (*_HYPER, "mu"), "warning", "is not given: FedProx with mu 0 is FedAvg", "write for example mu: 0.01"
        )
    allowed = _OPTIMIZER_KEYS[hyper.optimizer]
    for key in sorted(hyper.optimizer_kwargs.model_fields_set - allowed):
        yield bundle.problem(
            "job",
            (*_HYPER, "optimizer_kwargs", key),
            "error",
            f"{hyper.optimizer} has no setting {key}",
            f"it has {', '.join(sorted(allowed))}",
        )
    usual = _USUAL_RATE[hyper.optimizer]
    private = bundle.job.privacy.differential_privacy
    clipped = private.enabled and private.mechanism == "DP-SGD"  # no step is longer than rate times clip
    if hyper.learning_rate > usual and not clipped:
        yield bundle.problem(
            "job",
            (*_HYPER, "learning_rate"),
            "warning",
            f"{hyper.learning_rate:g} is high for {hyper.optimizer}, training may diverge",
            f"usual is at most {usual:g}",
        )
    schedule = hyper.lr_schedule
    if schedule is not None and (schedule.min_learning_rate or 0.0) > hyper.learning_rate:
        at: Trail = (*_HYPER, "lr_schedule", "min_learning_rate")
        yield bundle.problem("job", at, "error", f"is above the learning rate, {hyper.learning_rate:g}")
    losses = _LOSSES[bundle.job.model.output_schema.type]
    if hyper.loss_function is not None and hyper.loss_function not in losses:
        yield bundle.problem(
            "job",
            (*_HYPER, "loss_function"),
            "error",
            f"'{hyper.loss_function}' is no loss for {bundle.job.model.output_schema.type}",
            f"use one of {', '.join(losses)}",
        )


def privacy(bundle: JobBundle) -> Iterator[Problem]:
    """The privacy numbers can be what they promise."""
    spec = bundle.job.privacy.differential_privacy
    if not spec.enabled:
        return
    at: Trail = ("privacy_config", "differential_privacy")
    clients = len(bundle.fleet) if bundle.fleet is not None else bundle.job.orchestration.max_clients
    if spec.delta is not None and spec.delta * clients >= 1:
        yield bundle.problem(
            "job",
            (*at, "delta"),
            "warning",
            f"{spec.delta:g} is not below 1 / {clients} clients: it protects nobody",
            f"write less than {1 / clients:.1g}, better a tenth of it",
        )
    if spec.delta == 0:
        yield bundle.problem("job", (*at, "delta"), "error", "0 cannot be reached with Gaussian noise", "write 1e-5")
    if spec.noise_multiplier is not None and spec.max_grad_norm is None and spec.sensitivity is None:
        yield bundle.problem(
            "job",
            (*at, "max_grad_norm"),
            "warning",
            "is missing: noise protects only what is clipped",
            "write for example max_grad_norm: 1.0",
        )
    if spec.epsilon is None and spec.noise_multiplier is None:
        yield bundle.problem("job", (*at, "epsilon"), "error", "is missing: give epsilon or noise_multiplier")


def early_stopping(bundle: JobBundle) -> Iterator[Problem]:
    """Early stopping says when to stop."""
    stopping = bundle.job.training.global_training.early_stopping
    if stopping is not None and stopping.enabled and stopping.patience is None and stopping.threshold is None:
        yield bundle.problem(
            "job",
            ("training_config", "global_training", "early_stopping"),
            "error",
            "is enabled, but has neither patience nor threshold",
            "write for example patience: 5",
        )


def resources(bundle: JobBundle) -> Iterator[Problem]:
    """Resources are what machines have."""
    spec = bundle.job.orchestration.resources
    at: Trail = ("orchestration_config", "resources")
    if spec is None:
        return
    for key, amount, most in (("cpu_cores", spec.cpu_cores, 1024), ("memory_gb", spec.memory_gb, 24_000)):
        if amount is not None and amount > most:
            yield bundle.problem("job", (*at, key), "warning", f"{amount:g} is more than a machine has")


def holdout_location(bundle: JobBundle) -> Iterator[Problem]:
    """The held-out data, and what it is compared with, lie where a client's data may lie."""
    holdout, drift = bundle.job.validation.holdout_dataset, bundle.job.validation.drift_detection
    places = {
        ("holdout_dataset", "source"): holdout.source if holdout is not None else None,
        ("drift_detection", "baseline_distribution"): drift.baseline_distribution if drift is not None else None,
    }
    for trail, place in places.items():
        try:
            if place is not None:
                parse_location(place)
        except ValueError as error:
            yield bundle.problem("job", ("validation_config", *trail), "error", str(error))


JOB_CHECKS = (
    kind,
    *AGGREGATION_CHECKS,
    holdout_location,
    custom_class,
    model_hyperparameters,
    outputs,
    training,
    privacy,
    early_stopping,
    resources,
)
