"""Training settings that do not go together in a run."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.specs.bundle import JobBundle
from fedloom.specs.problems import Severity
from fedloom.specs.trails import Trail
from fedloom.tasks.memory import training_bytes
from fedloom.tasks.recipe import Recipe

_MOMENTUM = ("momentum", "dampening", "nesterov")


def training_findings(bundle: JobBundle) -> Iterator[tuple[str, Trail, str, str | None]]:
    """What keeps a job's training from running: kind of file, place, message, hint."""
    training = bundle.job.training
    if training.algorithm == "SCAFFOLD":
        yield from _scaffold(bundle)
    kwargs = training.hyperparameters.optimizer_kwargs
    if kwargs.nesterov and (not kwargs.momentum or kwargs.dampening):
        at: Trail = ("training_config", "hyperparameters", "optimizer_kwargs", "nesterov")
        yield "job", at, "nesterov needs momentum above 0 and no dampening", "write for example momentum: 0.9"
    if bundle.job.model.output_schema.type == "regression":
        yield from _regression(bundle)
    schedule, rounds = training.hyperparameters.lr_schedule, training.global_training.num_rounds
    if schedule is not None and (schedule.warmup_rounds or 0) >= rounds:
        at = ("training_config", "hyperparameters", "lr_schedule", "warmup_rounds")
        yield "job", at, f"{schedule.warmup_rounds} of {rounds} rounds leave none with the full rate", None


def memory_findings(bundle: JobBundle, recipe: Recipe) -> Iterator[tuple[Trail, Severity, str, str]]:
    """A limit on memory that the tensors of a training step alone exceed: place, severity, message, hint."""
    resources, need = bundle.job.orchestration.resources, training_bytes(recipe.model, recipe.training)
    if resources is None or resources.memory_gb is None or need is None or need <= resources.memory_gb * 1e9:
        return
    message = f"a training step takes {need / 1e9:.3g} GB of tensors alone"
    yield ("orchestration_config", "resources", "memory_gb"), "error", message, "write more, or a smaller batch_size"


def _regression(bundle: JobBundle) -> Iterator[tuple[str, Trail, str, str | None]]:
    """Numbers have no shares to keep, and reconstruct nothing."""
    holdout = bundle.job.validation.holdout_dataset
    if holdout is not None and holdout.stratified:
        at = ("validation_config", "holdout_dataset", "stratified")
        yield "job", at, "regression has no classes whose shares a sample could keep", "write stratified: false"


def _scaffold(bundle: JobBundle) -> Iterator[tuple[str, Trail, str, str | None]]:
    """Control variates are gradients in the clear, and are computed from plain steps."""
    settings, privacy = bundle.job.training.hyperparameters, bundle.job.privacy
    at: Trail = ("training_config", "hyperparameters")
    if settings.optimizer != "SGD":
        message = f"SCAFFOLD's control variates follow from steps of SGD, not of {settings.optimizer}"
        yield "job", (*at, "optimizer"), message, "write optimizer: SGD, or algorithm: FedAvg"
    for name in _MOMENTUM:
        if getattr(settings.optimizer_kwargs, name):
            message = f"SCAFFOLD's control variates follow from plain steps, without {name}"
            yield "job", (*at, "optimizer_kwargs", name), message, "remove it"
    if bundle.job.aggregation is not None:
        message = "SCAFFOLD goes with the weighted mean alone: rules and checks judge updates, not control variates"
        yield "job", ("aggregation_config",), message, "remove it, or write algorithm: FedAvg"
    for name, asked in (
        ("secure_aggregation", privacy.secure_aggregation.enabled),
        ("differential_privacy", privacy.differential_privacy.enabled),
    ):
        if asked:
            message = "SCAFFOLD's control variates would show the server each client's gradient in the clear"
            yield "job", ("privacy_config", name), message, "write algorithm: FedAvg or FedProx"
