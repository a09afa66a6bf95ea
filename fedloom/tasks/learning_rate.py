"""The learning rate of a round: a pure function of its number."""

from __future__ import annotations

import math
from dataclasses import replace

from fedloom.tasks.recipe import Recipe, ScheduleRecipe, TrainingRecipe


def training_of(recipe: Recipe, round: int) -> TrainingRecipe:
    """What the clients do in a round: the job's training with that round's learning rate.

    Args:
        recipe: Of the run.
        round: From 1.
    """
    training = recipe.training
    if training.schedule is None:
        return training
    rate = training.learning_rate * factor(training.schedule, round, recipe.rounds)
    return replace(training, learning_rate=rate, schedule=None)


def factor(schedule: ScheduleRecipe, round: int, rounds: int) -> float:
    """What the first rate is multiplied by in a round.

    The cosine's half wave starts at 1 and would reach its floor after the last round (Loshchilov and Hutter 2017,
    "SGDR: Stochastic gradient descent with warm restarts"); before it, a warm-up climbs in equal parts.

    Args:
        schedule: The kind, and its numbers.
        round: From 1.
        rounds: Rounds of the run.
    """
    if schedule.type == "step":
        return schedule.gamma ** ((round - 1) // schedule.step_size)
    if schedule.type == "exponential":
        return schedule.gamma ** (round - 1)
    warmup = schedule.warmup_rounds
    if round <= warmup:
        return round / (warmup + 1)
    done = (round - 1 - warmup) / (rounds - warmup)
    return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * done)) / 2
