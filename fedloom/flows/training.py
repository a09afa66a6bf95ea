"""How a job's training becomes what the steps read."""

from __future__ import annotations

from fedloom.flows.aggregation import checks_of
from fedloom.flows.support import LOSSES
from fedloom.specs.job import Job
from fedloom.specs.job_training import Hyperparameters
from fedloom.tasks.recipe import ScheduleRecipe, TrainingRecipe

_CLIENT_TIMEOUT_MINUTES = 60
"""How long a client may train when the job does not say."""


def training_recipe(job: Job) -> TrainingRecipe:
    """What a client does with the model."""
    training = job.training
    settings = training.hyperparameters
    wait = job.orchestration.timing.max_wait_time if job.orchestration.timing is not None else None
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
        loss_before=any(check.name == "loss_improvement" for check in checks_of(job)),
        shard_deadline_s=60.0 * wait if wait is not None else None,
        client_timeout_s=60.0 * (job.orchestration.aggregation.timeout or _CLIENT_TIMEOUT_MINUTES),
        schedule=_schedule(settings),
    )


def _schedule(settings: Hyperparameters) -> ScheduleRecipe | None:
    asked = settings.lr_schedule
    if asked is None or asked.type == "constant":
        return None
    return ScheduleRecipe(
        type=asked.type,
        gamma=asked.gamma or 1.0,
        step_size=asked.step_size or 1,
        floor=(asked.min_learning_rate or 0.0) / settings.learning_rate,
        warmup_rounds=asked.warmup_rounds or 0,
    )
