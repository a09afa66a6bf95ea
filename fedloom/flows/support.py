"""What specs may ask for and this version cannot do yet: refused by name, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.specs.bundle import JobBundle
from fedloom.specs.job import Job
from fedloom.specs.problems import Problem
from fedloom.specs.selector import Selector
from fedloom.specs.trails import Trail
from fedloom.tasks.architectures import DEFAULTS
from fedloom.tasks.metrics import HIGHER_IS_BETTER, OF_OUTPUT, canonical_metric

Finding = tuple[Trail, str]

ARCHITECTURES = (*DEFAULTS, "Custom")
ALGORITHMS = ("FedAvg", "FedProx", "SCAFFOLD")
SELECTIONS = ("random", "importance_sampling", "poisson")
WEIGHTS = ("num_samples", "uniform")
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
    found = [bundle.problem("job", trail, "not built", message) for trail, message in _job(bundle.job)]
    if bundle.selector is not None:
        found += [
            bundle.problem("selector", trail, "not built", message) for trail, message in _selector(bundle.selector)
        ]
    return found


def _job(job: Job) -> Iterator[Finding]:
    yield from _model(job)
    yield from _training(job)
    yield from _clients(job)
    yield from _privacy(job)
    yield from _evaluation(job)
    if job.aggregation is not None:
        yield ("aggregation_config",), "jobs that only aggregate, and robust aggregation, are not built yet"
    if job.output is not None:
        yield ("output",), "reports and model exports are not built yet; results stand in the run store"
    if job.versioning is not None:
        yield ("versioning",), "automatic model versions are not built yet; model_config.version is used"


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
    chosen = orchestration.client_selection.algorithm
    if chosen not in SELECTIONS:
        yield ("orchestration_config", "client_selection", "algorithm"), _only("selection", chosen, SELECTIONS)
    if orchestration.client_selection.fairness_policy is not None:
        yield ("orchestration_config", "client_selection", "fairness_policy"), "fairness is not built yet"
    if orchestration.aggregation.weights not in WEIGHTS:
        at = ("orchestration_config", "aggregation", "weights")
        yield at, _only("weights", orchestration.aggregation.weights, WEIGHTS)
    trigger = orchestration.timing.trigger if orchestration.timing is not None else "after_client_updates"
    if trigger != "after_client_updates":
        how = "schedule.yaml launches whole runs" if trigger == "scheduled" else "fedloom run starts a run by hand"
        yield (
            ("orchestration_config", "timing", "trigger"),
            f"trigger {trigger} is not built: nothing outside a run can start its aggregation, which follows the "
            f"clients' updates; {how}, write trigger: after_client_updates",
        )


def _privacy(job: Job) -> Iterator[Finding]:
    secure = job.privacy.secure_aggregation
    if secure.enabled and secure.protocol == "two_server":
        yield (
            ("privacy_config", "secure_aggregation", "protocol"),
            "two_server is built as a library alone (fedloom.tasks.secure_aggregation.two_server); write pairwise",
        )
    if secure.enabled and job.model.architecture == "Custom":
        yield (
            ("privacy_config", "secure_aggregation"),
            "masks need the number of parameters beforehand, which a custom class does not say",
        )


def _evaluation(job: Job) -> Iterator[Finding]:
    asked, output = job.validation, job.model.output_schema.type
    if asked.evaluation_mode:
        yield ("validation_config", "evaluation_mode"), "jobs that only evaluate are not built yet"
    for i, metric in enumerate(asked.metrics):
        yield from _metric(("validation_config", "metrics", i, "name"), metric.name, output)
        if metric.aggregation is not None:
            yield (
                ("validation_config", "metrics", i, "aggregation"),
                "metrics measured by clients are not built yet; metrics come from the holdout",
            )
    for name in asked.thresholds:
        yield from _metric(("validation_config", "thresholds", name), name, output)
    stopping = job.training.global_training.early_stopping
    if stopping is not None and stopping.enabled and stopping.metric is not None:
        yield from _metric(("training_config", "global_training", "early_stopping", "metric"), stopping.metric, output)
    if asked.disaggregate_by:
        yield ("validation_config", "disaggregate_by"), "metrics by group are not built yet"
    for name, section in (("bias_fairness", asked.bias_fairness), ("drift_detection", asked.drift_detection)):
        if section is not None and section.enabled:
            yield ("validation_config", name), f"{name} is not built yet; set enabled to false"
    if asked.holdout_dataset is not None and asked.holdout_dataset.stratify_by:
        at = ("validation_config", "holdout_dataset", "stratify_by")
        yield at, "a holdout is stratified by its labels only; other columns are not built yet"


def _metric(trail: Trail, name: str, output: str) -> Iterator[Finding]:
    if canonical_metric(name) not in HIGHER_IS_BETTER:
        yield trail, _only("metric", name, sorted(OF_OUTPUT.get(output, ())))
    elif output in OF_OUTPUT and canonical_metric(name) not in OF_OUTPUT[output]:
        yield trail, f"{name} is no metric of {output}; there are {', '.join(sorted(OF_OUTPUT[output]))}"


def _selector(selector: Selector) -> Iterator[Finding]:
    how = selector.selection_algorithm
    if how.algorithm not in SELECTIONS:
        yield ("selection_algorithm", "algorithm"), _only("selection", how.algorithm, SELECTIONS)
    if how.sampling_weights:
        yield ("selection_algorithm", "sampling_weights"), "sampling weights are not built yet"
    if how.stratify_by:
        yield ("selection_algorithm", "stratify_by"), "stratified selection is not built yet"
    if how.exploration_rate:
        yield ("selection_algorithm", "exploration_rate"), "an exploration rate is not built yet; set it to 0"
    if how.algorithm == "importance_sampling" and how.importance_metric not in (None, "data_volume"):
        trail = ("selection_algorithm", "importance_metric")
        yield trail, _only("importance metric", how.importance_metric or "", ("data_volume",))
    if selector.fairness_policy.enabled:
        yield ("fairness_policy",), "fairness over rounds is not built yet; set enabled to false"
    automatic = selector.blacklist.auto_blacklist_criteria if selector.blacklist else None
    if selector.blacklist is not None and selector.blacklist.enabled and automatic is not None:
        yield ("blacklist", "auto_blacklist_criteria"), "automatic blacklisting is not built yet"


def _only(what: str, asked: str, built: tuple[str, ...] | list[str]) -> str:
    return f"{what} {asked} is not built yet; this version has {', '.join(built)}"
