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
ALGORITHMS = ("FedAvg", "FedProx", "FedOpt", "FedYogi", "FedAdam")
SELECTIONS = ("random", "importance_sampling", "poisson")
LOSSES = {
    "binary_classification": ("BCEWithLogitsLoss",),
    "multi_class": ("CrossEntropyLoss",),
    "reconstruction_error": ("MSELoss", "L1Loss", "HuberLoss"),
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
    if job.output is not None:
        yield ("output",), "reports and model exports are not built yet; results stand in the run store"
    if job.versioning is not None:
        yield ("versioning",), "automatic model versions are not built yet; model_config.version is used"


def _model(job: Job) -> Iterator[Finding]:
    model = job.model
    if model.architecture not in ARCHITECTURES:
        yield ("model_config", "architecture"), _only("architecture", model.architecture, ARCHITECTURES)
    if model.framework != "PyTorch":
        yield ("model_config", "framework"), _only("framework", model.framework, ("PyTorch",))
    output = model.output_schema
    if output.type not in LOSSES:
        yield ("model_config", "output_schema", "type"), _only("output", output.type, tuple(LOSSES))
    if output.labels is not None and output.labels != tuple(range(len(output.labels))):
        wanted = list(range(len(output.labels)))
        yield (
            ("model_config", "output_schema", "labels"),
            f"labels other than {wanted}, in this order, are not built yet",
        )
    if output.threshold is not None and output.type != "binary_classification":
        yield ("model_config", "output_schema", "threshold"), f"a threshold for {output.type} is not built yet"
    if model.model_source is not None:
        yield ("model_config", "model_source"), "starting from a trained model is not built yet"


def _training(job: Job) -> Iterator[Finding]:
    training = job.training
    if training.algorithm not in ALGORITHMS:
        yield ("training_config", "algorithm"), _only("algorithm", training.algorithm, ALGORITHMS)
    loss, output = training.hyperparameters.loss_function, job.model.output_schema.type
    if loss is not None and loss not in LOSSES.get(output, (loss,)):
        trail = ("training_config", "hyperparameters", "loss_function")
        yield trail, _only(f"loss for {output}", loss, LOSSES[output])


def _clients(job: Job) -> Iterator[Finding]:
    orchestration = job.orchestration
    chosen = orchestration.client_selection.algorithm
    if chosen not in SELECTIONS:
        yield ("orchestration_config", "client_selection", "algorithm"), _only("selection", chosen, SELECTIONS)
    if orchestration.client_selection.fairness_policy is not None:
        yield ("orchestration_config", "client_selection", "fairness_policy"), "fairness is not built yet"
    timing, at = orchestration.timing, ("orchestration_config", "timing")
    if timing is not None and timing.trigger != "after_client_updates":
        yield (*at, "trigger"), _only("trigger", timing.trigger, ("after_client_updates",))
    if timing is not None and not timing.wait_for_min_clients:
        yield (*at, "wait_for_min_clients"), "a round without a quorum is not built yet; write true"


def _privacy(job: Job) -> Iterator[Finding]:
    if job.privacy.pseudonymisation is not None:
        yield (
            ("privacy_config", "pseudonymisation"),
            "pseudonyms are not built yet; name clients by pseudonyms in the fleet",
        )
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
