"""The compiler: specs in, Plan out. Pure: no network, no torch, no clock."""

from __future__ import annotations

from fedloom.flows.budget import privacy_recipe
from fedloom.flows.estimate import shard_memory
from fedloom.flows.plan import Loop, Measure, OutputRef, Plan, Resources, Step
from fedloom.flows.protect import masking_recipe
from fedloom.flows.runnable import not_runnable, own_criteria, signals_of
from fedloom.flows.support import LOSSES, not_built
from fedloom.specs.bundle import JobBundle
from fedloom.specs.contract import DataContract, signal_catalog
from fedloom.specs.criteria import eligibility_tests
from fedloom.specs.job import Job
from fedloom.specs.job_release import Bounds
from fedloom.specs.problems import SpecError
from fedloom.specs.selector import Selector
from fedloom.tasks.architectures import DEFAULTS, parameter_count
from fedloom.tasks.metrics import HIGHER_IS_BETTER, canonical_metric
from fedloom.tasks.recipe import (
    AggregationRecipe,
    Bound,
    EvaluationRecipe,
    ModelRecipe,
    Recipe,
    SelectionRecipe,
    Setting,
    TrainingRecipe,
)
from fedloom.tasks.window_spec import WindowSpec

PLAN_FORMAT = 4
DEFAULT_WINDOW = 64
"""Samples in a window when a job, such as a short one, does not say."""
CLIENT_STAGES = ("advertise_keys", "share_keys", "mask_update", "confirm_survivors", "reveal_shares")
"""Steps of secure aggregation at the clients, S0 to S4 of `fedloom.tasks.secure_aggregation`."""
_THREADS = 1
_MAX_PARAMETERS = 10**10
_CLIENT_TIMEOUT_MINUTES = 60
"""How long a client may train when the job does not say."""
_PARTICIPATION = (
    Measure("cohort", "number", "Clients asked for an update in a round."),
    Measure("participants", "number", "Clients that gave an update in a round."),
)
_DECISION = (Measure("decision", "word", "What the gate decided on a run's last model."),)
_DEFAULT_METRICS = {
    "binary_classification": ("auc", "accuracy", "precision", "recall", "f1_score"),
    "multi_class": ("accuracy", "f1_score"),
    "reconstruction_error": ("reconstruction_error", "auc"),
}


def compile_plan(bundle: JobBundle, seed: int | None = None, rounds: int | None = None) -> Plan:
    """Compile the specs of a job.

    Args:
        bundle: The loaded specs.
        seed: Replaces the job's seed.
        rounds: Replaces the job's number of rounds.

    Raises:
        SpecError: when the specs ask for what this version cannot do, or lack what a run needs.
    """
    problems = [*not_built(bundle), *not_runnable(bundle)]
    if problems:
        raise SpecError(problems)
    recipe = _recipe(bundle, seed, rounds)
    parameters = parameter_count(recipe.model) or 0
    if parameters > _MAX_PARAMETERS:
        message = f"the model would have {parameters:,} parameters, more than {_MAX_PARAMETERS:,}"
        raise SpecError([bundle.problem("job", ("model_config",), "error", message)])
    one = Resources(cpus=recipe.threads, memory_bytes=None)
    train = _train(recipe)
    masked = () if recipe.masking is None else _masked(one)
    last = masked[-1] if masked else train
    # Who is drawn, and the noise on a sum, follow from the server's secret where clients are protected as a whole.
    secret = recipe.privacy is not None and recipe.privacy.unit == "client"
    return Plan(
        format=PLAN_FORMAT,
        job_id=recipe.job_id,
        setup=(
            Step("validate", (), one, retries=1, at_clients=bool(masked)),
            Step("initialise", ("validate",), one, retries=1),
            *([Step("reserve_privacy", ("initialise",), one, retries=1, at_server=True)] if recipe.privacy else []),
        ),
        loop=Loop(
            rounds=recipe.rounds,
            steps=(
                Step("select", (), one, retries=1, at_server=secret),
                Step("distribute", ("select",), one, retries=1),
                train,
                *masked,
                Step("aggregate", (last.name,), one, retries=1, at_server=secret, measures=_PARTICIPATION),
                Step("evaluate", ("aggregate",), one, retries=1),
                Step("gate", ("evaluate",), one, retries=1, measures=_DECISION),
            ),
            until=OutputRef("gate", "stop"),
        ),
        finish=_finish(recipe, one),
        recipe=recipe,
    )


def _finish(recipe: Recipe, needs: Resources) -> tuple[Step, ...]:
    if recipe.privacy is None:
        return (Step("report", (), needs, retries=1),)
    return (
        Step("commit_privacy", (), needs, retries=1, at_server=True),
        Step("report", ("commit_privacy",), needs, retries=1),
    )


def _train(recipe: Recipe) -> Step:
    # The clients of a shard follow each other, and reading and training may each take a client's whole time.
    limit = 2 * recipe.training.client_timeout_s * recipe.selection.shard_size
    return Step(
        "train",
        ("distribute",),
        Resources(cpus=recipe.threads, memory_bytes=shard_memory(recipe), accelerator=True),
        retries=1,
        timeout_s=limit,
        fan_out=OutputRef("select", "shards"),
        may_be_lost=True,
        at_clients=recipe.masking is not None or recipe.privacy is not None,
    )


def _masked(needs: Resources) -> tuple[Step, ...]:
    """The stages of secure aggregation, each over the shards of clients; at last the sum is opened in pieces."""
    stages: list[Step] = []
    for name in CLIENT_STAGES:
        before = stages[-1].name if stages else "train"
        stages.append(
            Step(
                name,
                (before,),
                needs,
                retries=1,
                fan_out=OutputRef("select", "shards"),
                may_be_lost=True,
                at_clients=True,
            )
        )
    pieces = OutputRef("distribute", "chunks")
    return (*stages, Step("unmask", (stages[-1].name,), needs, retries=1, fan_out=pieces))


def _recipe(bundle: JobBundle, seed: int | None, rounds: int | None) -> Recipe:
    job, fleet = bundle.job, bundle.fleet
    assert fleet is not None, "a job without a fleet is refused before"
    inputs = _inputs(job, bundle.contract)
    model, selection = _model(job, inputs), _selection(job, bundle.selector)
    if model.architecture == "Transformer":
        _check_heads(bundle, model)
    quorum = job.orchestration.aggregation.min_quorum or job.orchestration.min_clients
    training = _training(job)
    masking = masking_recipe(bundle, model, inputs, selection, quorum)
    total = job.training.global_training.num_rounds if rounds is None else rounds
    return Recipe(
        job_id=job.job_id,
        model_version=job.model.version,
        seed=job.training.seed if seed is None else seed,
        rounds=total,
        fleet_digest=fleet.digest,
        threads=_THREADS,
        model=model,
        inputs=inputs,
        selection=selection,
        training=training,
        aggregation=AggregationRecipe(
            weights=job.orchestration.aggregation.weights,
            quorum=quorum,
        ),
        masking=masking,
        privacy=privacy_recipe(bundle, inputs, selection, training, masking, total),
        evaluation=_evaluation(job),
    )


def _inputs(job: Job, contract: DataContract | None) -> WindowSpec:
    """The windows that a model reads, standardised by the contract's nominal values where a signal has them."""
    inputs, output = job.model.input_schema, job.model.output_schema
    signals = signals_of(job, contract)
    size = inputs.window_size or DEFAULT_WINDOW
    nominal = signal_catalog(contract).nominal if contract is not None else {}
    given = [nominal.get(name, (0.0, 1.0)) for name in signals] if any(name in nominal for name in signals) else []
    return WindowSpec(
        signals=signals,
        window_size=size,
        stride=inputs.stride or size,
        label_column=output.label_column,
        label_optional=output.type == "reconstruction_error",
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


def _selection(job: Job, selector: Selector | None) -> SelectionRecipe:
    orchestration = job.orchestration
    chosen = orchestration.client_selection
    how = selector.selection_algorithm if selector else None
    algorithm = how.algorithm if how else chosen.algorithm
    target = how.num_clients if how else chosen.target_clients or orchestration.max_clients
    black, grey, watch = (selector.blacklist, selector.greylist, selector.monitoring) if selector else (None,) * 3
    minimum = max((how.min_clients if how else None) or 1, orchestration.min_clients)
    watching = watch is not None and watch.alert_on_low_eligibility
    return SelectionRecipe(
        algorithm=algorithm,
        target=min(target, orchestration.max_clients),
        minimum=minimum,
        criteria=eligibility_tests(selector.eligibility_criteria) if selector else own_criteria(job),
        blocked=tuple((c, black.reasons.get(c, "")) for c in sorted(black.client_ids))
        if black and black.enabled
        else (),
        grey=tuple(sorted(grey.client_ids)) if grey and grey.enabled else (),
        grey_factor=_factor(selector),
        weight_column="data_samples" if algorithm == "importance_sampling" else None,
        alert_below=((watch.eligibility_threshold if watch else None) or minimum) if watching else 0,
        shard_size=orchestration.shard_size,
    )


def _factor(selector: Selector | None) -> float:
    factor = selector.greylist.deprioritization_factor if selector and selector.greylist else None
    return 1.0 if factor is None else factor


def _training(job: Job) -> TrainingRecipe:
    training = job.training
    settings = training.hyperparameters
    kwargs = settings.optimizer_kwargs.model_dump(exclude_none=True)
    return TrainingRecipe(
        algorithm=training.algorithm,
        optimizer=settings.optimizer,
        optimizer_settings=tuple(sorted(kwargs.items())),
        learning_rate=settings.learning_rate,
        proximal=(settings.mu or 0.0) if training.algorithm == "FedProx" else 0.0,
        loss=settings.loss_function or LOSSES[job.model.output_schema.type][0],
        class_weights=settings.class_weights or (),
        local_epochs=training.local_epochs,
        batch_size=training.batch_size,
        shuffle=training.shuffle,
        client_timeout_s=60.0 * (job.orchestration.aggregation.timeout or _CLIENT_TIMEOUT_MINUTES),
    )


def _evaluation(job: Job) -> EvaluationRecipe:
    asked, output = job.validation, job.model.output_schema
    holdout = asked.holdout_dataset
    stopping = job.training.global_training.early_stopping
    watched = stopping if stopping is not None and stopping.enabled else None
    bounds = [
        _bound(f"target {metric.name}", metric.name, metric.target)
        for metric in asked.metrics
        if metric.target is not None
    ]
    bounds += [_bound(f"threshold {name}", name, value) for name, value in sorted(asked.thresholds.items())]
    names = [canonical_metric(metric.name) for metric in asked.metrics] or _DEFAULT_METRICS[output.type]
    stop_metric = canonical_metric(watched.metric or names[0]) if watched else None
    extra = [bound.metric for bound in bounds] + ([stop_metric] if stop_metric else [])
    return EvaluationRecipe(
        holdout=holdout.source if holdout is not None else None,
        holdout_size=holdout.size if holdout is not None else None,
        stratified=holdout is not None and holdout.stratified,
        metrics=tuple(dict.fromkeys([*names, *extra])),
        bounds=tuple(bounds),
        threshold=0.5 if output.threshold is None else output.threshold,
        stop_metric=stop_metric,
        stop_value=watched.threshold if watched else None,
        patience=watched.patience if watched else None,
    )


def _bound(name: str, metric: str, value: float | Bounds) -> Bound:
    """A limit; a bare number is a minimum or a maximum, whichever is the metric's good direction."""
    metric = canonical_metric(metric)
    if isinstance(value, Bounds):
        return Bound(name, metric, value.min, value.max)
    if HIGHER_IS_BETTER[metric]:
        return Bound(name, metric, float(value), None)
    return Bound(name, metric, None, float(value))
