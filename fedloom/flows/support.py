"""What specs may ask for and this version cannot do yet: refused by name, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.flows.kinds import kind_unbuilt
from fedloom.flows.outputs import output_unbuilt
from fedloom.specs.bundle import JobBundle
from fedloom.specs.job import Job
from fedloom.specs.problems import Problem
from fedloom.specs.trails import Trail
from fedloom.tasks.architectures import DEFAULTS
from fedloom.tasks.metrics import HIGHER_IS_BETTER, OF_OUTPUT, canonical_metric, metrics_of

Finding = tuple[Trail, str]

ARCHITECTURES = (*DEFAULTS, "Custom")
ALGORITHMS = ("FedAvg", "FedProx", "SCAFFOLD", "FedOpt", "FedYogi", "FedAdam")
_DISTANCES = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
LOSSES = {
    "binary_classification": ("BCEWithLogitsLoss", "BCELoss"),
    "multi_class": ("CrossEntropyLoss", "NLLLoss"),
    "regression": _DISTANCES,
    "reconstruction_error": _DISTANCES,
}
"""Loss functions by model output; the first is the one taken when a spec names none."""


def not_built(bundle: JobBundle) -> list[Problem]:
    """Every feature that the specs of a job ask for and that this version cannot carry out."""
    return [bundle.problem("job", trail, "not built", message) for trail, message in _job(bundle.job)]


def _job(job: Job) -> Iterator[Finding]:
    yield from _model(job)
    yield from _training(job)
    yield from _clients(job)
    yield from _privacy(job)
    yield from _evaluation(job)
    yield from kind_unbuilt(job)
    yield from output_unbuilt(job)


def _model(job: Job) -> Iterator[Finding]:
    model = job.model
    if model.architecture not in ARCHITECTURES:
        yield ("model_config", "architecture"), _only("architecture", model.architecture, ARCHITECTURES)
    if model.framework != "PyTorch":
        message = f"framework {model.framework} is not built: fedloom trains with PyTorch; write framework: PyTorch"
        yield ("model_config", "framework"), message
    output = model.output_schema
    if output.threshold is not None and output.type != "binary_classification":
        yield ("model_config", "output_schema", "threshold"), f"a threshold for {output.type} is not built yet"


def _training(job: Job) -> Iterator[Finding]:
    training = job.training
    if training.algorithm not in ALGORITHMS:
        yield ("training_config", "algorithm"), _only("algorithm", training.algorithm, ALGORITHMS)
    loss, output = training.hyperparameters.loss_function, job.model.output_schema.type
    trail = ("training_config", "hyperparameters", "loss_function")
    if loss in ("CrossEntropyLoss", "NLLLoss") and output == "binary_classification":
        hint = "write BCEWithLogitsLoss, the same loss of one logit, or type: multi_class for one output a class"
        yield trail, f"{loss} is not built for binary_classification, whose networks have one output; {hint}"
    elif loss == "BCELoss" and job.model.architecture == "Custom":
        hint = "let it give logits, without a last sigmoid, and write BCEWithLogitsLoss"
        yield trail, f"BCELoss is not built for a custom class: {hint}"


def _clients(job: Job) -> Iterator[Finding]:
    orchestration = job.orchestration
    trigger = orchestration.timing.trigger if orchestration.timing is not None else "after_client_updates"
    if trigger != "after_client_updates" and job.kind != "aggregate":  # there, a run is that start
        how = "schedule.yaml launches whole runs" if trigger == "scheduled" else "fedloom run starts a run by hand"
        yield (
            ("orchestration_config", "timing", "trigger"),
            f"trigger {trigger} is not built: nothing outside a run can start its aggregation, which follows the "
            f"clients' updates; {how}, write trigger: after_client_updates",
        )


def _privacy(job: Job) -> Iterator[Finding]:
    secure = job.privacy.secure_aggregation
    if secure.enabled and job.model.architecture == "Custom":
        yield (
            ("privacy_config", "secure_aggregation"),
            "masks need the number of parameters beforehand, which a custom class does not say",
        )


def _evaluation(job: Job) -> Iterator[Finding]:
    asked, output = job.validation, job.model.output_schema.type
    for i, metric in enumerate(asked.metrics):
        yield from _metric(("validation_config", "metrics", i, "name"), metric.name, output)
    for name in asked.thresholds:
        yield from _metric(("validation_config", "thresholds", name), name, output)
    stopping = job.training.global_training.early_stopping
    if stopping is not None and stopping.enabled and stopping.metric is not None:
        yield from _metric(("training_config", "global_training", "early_stopping", "metric"), stopping.metric, output)
    drift = asked.drift_detection
    if drift is not None and drift.enabled and drift.method == "concept_drift":
        yield (
            ("validation_config", "drift_detection", "method"),
            "concept_drift needs what the running model predicted and what came true later, which no step collects; "
            "PSI and KS are built",
        )


def _metric(trail: Trail, name: str, output: str) -> Iterator[Finding]:
    if canonical_metric(name) not in HIGHER_IS_BETTER:
        yield trail, _only("metric", name, sorted(metrics_of(output)))
    elif output in OF_OUTPUT and canonical_metric(name) not in metrics_of(output):
        yield trail, f"{name} is no metric of {output}; there are {', '.join(sorted(metrics_of(output)))}"


def _only(what: str, asked: str, built: tuple[str, ...] | list[str]) -> str:
    return f"{what} {asked} is not built yet; this version has {', '.join(built)}"
