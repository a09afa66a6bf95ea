"""From specs to a recipe: what the steps of a job read."""

from __future__ import annotations

from fedloom.flows.aggregation import aggregation_recipe
from fedloom.flows.budget import privacy_recipe
from fedloom.flows.evaluation import evaluation_recipe
from fedloom.flows.kinds import given_recipe, increment_of, judged_twice, measuring_recipe, rounds_of
from fedloom.flows.outputs import output_recipe
from fedloom.flows.protect import masking_recipe
from fedloom.flows.runnable import signals_of
from fedloom.flows.selection import selection_recipe
from fedloom.flows.source import source_digest
from fedloom.flows.training import training_recipe
from fedloom.specs.bundle import JobBundle
from fedloom.specs.contract import DataContract, signal_catalog
from fedloom.specs.job import Job
from fedloom.specs.problems import SpecError
from fedloom.tasks.architectures import DEFAULTS
from fedloom.tasks.recipe import ModelRecipe, Recipe, Setting
from fedloom.tasks.window_spec import WindowSpec

DEFAULT_WINDOW = 64
"""Samples in a window when a job, such as a short one, does not say."""
THREADS = 1


def job_recipe(bundle: JobBundle, seed: int | None, rounds: int | None) -> Recipe:
    """Everything that the steps of a job read.

    Raises:
        SpecError: when the specs do not go together.
    """
    job, fleet = bundle.job, bundle.fleet
    assert fleet is not None, "a job without a fleet is refused before"
    inputs = inputs_of(job, bundle.contract)
    model, selection = _model(job, inputs), selection_recipe(bundle)
    if model.architecture == "Transformer":
        _check_heads(bundle, model)
    training, aggregation = training_recipe(job), aggregation_recipe(job)
    masking = masking_recipe(bundle, model, inputs, selection, aggregation.quorum)
    total = rounds_of(bundle, rounds)
    evaluation = evaluation_recipe(job)
    return Recipe(
        kind=job.kind,
        job_id=job.job_id,
        model_version=job.model.version,
        seed=job.training.seed if seed is None else seed,
        rounds=total,
        fleet_digest=fleet.digest,
        threads=THREADS,
        model=model,
        inputs=inputs,
        selection=selection,
        training=training,
        aggregation=aggregation,
        masking=masking,
        privacy=privacy_recipe(bundle, inputs, selection, training, masking, total),
        baseline=False,
        evaluation=judged_twice(job, evaluation),
        measuring=measuring_recipe(job, evaluation),
        given=given_recipe(job),
        increment=increment_of(job),
        output=output_recipe(job),
        model_source=job.model.model_source,
        model_source_digest=source_digest(bundle),
    )


def inputs_of(job: Job, contract: DataContract | None) -> WindowSpec:
    """The windows that a model reads, standardised by the contract's nominal values where a signal has them."""
    inputs, output = job.model.input_schema, job.model.output_schema
    signals = signals_of(job, contract)
    size = inputs.window_size or DEFAULT_WINDOW
    labels = output.labels or ()
    nominal = signal_catalog(contract).nominal if contract is not None else {}
    given = [nominal.get(name, (0.0, 1.0)) for name in signals] if any(name in nominal for name in signals) else []
    return WindowSpec(
        signals=signals,
        window_size=size,
        stride=inputs.stride or size,
        label_column=output.label_column,
        label_optional=output.type == "reconstruction_error",
        labels=() if labels == tuple(range(len(labels))) else labels,
        numeric=output.type == "regression",
        mean=tuple(mean for mean, _ in given),
        std=tuple(std for _, std in given),
    )


def _model(job: Job, inputs: WindowSpec) -> ModelRecipe:
    model = job.model
    given: dict[str, Setting] = model.model_hyperparameters.model_dump(exclude_none=True)
    if model.architecture != "Custom":
        known = DEFAULTS[model.architecture]
        given = {**known, **{name: value for name, value in given.items() if name in known}}
    labels = len(model.output_schema.labels or ()) or model.model_hyperparameters.num_classes
    classes = {"binary_classification": 2, "multi_class": labels or 0}
    return ModelRecipe(
        architecture=model.architecture,
        custom_class=model.custom_class,
        hyperparameters=tuple(sorted(given.items())),
        window_size=inputs.window_size,
        channels=len(inputs.signals),
        output=model.output_schema.type,
        classes=classes.get(model.output_schema.type, 0),
    )


def _check_heads(bundle: JobBundle, model: ModelRecipe) -> None:
    width, heads = (int(str(model.settings[name])) for name in ("hidden_dim", "num_heads"))
    if width % heads:
        at = ("model_config", "model_hyperparameters", "num_heads")
        message = f"hidden_dim ({width}) is no multiple of num_heads ({heads})"
        raise SpecError([bundle.problem("job", at, "error", message)])
