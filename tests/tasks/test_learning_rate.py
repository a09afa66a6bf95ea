"""The learning rate over rounds, and early stopping."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.specs.bundle import load_job
from fedloom.specs.problems import SpecError
from fedloom.tasks.learning_rate import factor, training_of
from fedloom.tasks.metrics import HIGHER_IS_BETTER
from fedloom.tasks.recipe import EvaluationRecipe, ScheduleRecipe
from fedloom.tasks.rounds import early_stop, read_rounds
from fedloom.tasks.step import Place, Run
from tests.conftest import write_job

MakeRun = Callable[..., Run]
SGD = {"learning_rate": 0.1, "optimizer": "SGD"}


def rates(make_run: MakeRun, schedule: dict[str, Any], rounds: int) -> list[float]:
    run = make_run(hyperparameters={**SGD, "lr_schedule": schedule}, num_rounds=rounds)
    return [training_of(run.recipe, round).learning_rate for round in range(1, rounds + 1)]


CASES: list[tuple[dict[str, Any], list[float]]] = [
    ({"type": "constant"}, [0.1, 0.1, 0.1, 0.1]),
    ({"type": "step", "step_size": 2, "gamma": 0.5}, [0.1, 0.1, 0.05, 0.05, 0.025]),
    ({"type": "exponential", "gamma": 0.5}, [0.1, 0.05, 0.025]),
    ({"type": "cosine"}, [0.1, 0.075, 0.025]),  # (1 + cos(π/3)) / 2, (1 + cos(2π/3)) / 2
    ({"type": "cosine", "min_learning_rate": 0.02}, [0.1, 0.06]),
    ({"type": "warmup_cosine", "warmup_rounds": 1}, [0.05, 0.1, 0.05]),
    ({"type": "warmup_cosine", "warmup_rounds": 3, "min_learning_rate": 0.02}, [0.025, 0.05, 0.075, 0.1, 0.06]),
]


@pytest.mark.parametrize(("schedule", "expected"), CASES, ids=lambda v: v["type"] if isinstance(v, dict) else "")
def test_the_rate_of_a_round_follows_from_its_number(
    make_run: MakeRun, schedule: dict[str, Any], expected: list[float]
) -> None:
    assert rates(make_run, schedule, len(expected)) == pytest.approx(expected)


@given(st.integers(2, 60), st.integers(0, 59), st.floats(0, 1))
def test_cosine_is_torchs_and_never_leaves_its_bounds(rounds: int, warmup: int, floor: float) -> None:
    warmup = min(warmup, rounds - 1)
    schedule = ScheduleRecipe("warmup_cosine", 1.0, 1, floor, warmup)
    found = [factor(schedule, round, rounds) for round in range(1, rounds + 1)]
    assert all(0 < value <= 1 + 1e-12 for value in found)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimise = torch.optim.SGD([parameter], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimise, T_max=rounds - warmup, eta_min=floor)
    for value in found[warmup:]:
        assert value == pytest.approx(optimise.param_groups[0]["lr"], abs=1e-9)
        optimise.step()
        torchs.step()


def test_the_rate_stands_in_the_order_and_in_the_rounds_line(make_run: MakeRun) -> None:
    run = make_run(hyperparameters={**SGD, "lr_schedule": {"type": "exponential", "gamma": 0.5}})
    simulate(compile_plan(load_job(run.folder)), run)
    lines = read_rounds(run.store.read(run.key("round.jsonl")))
    assert [line["learning_rate"] for line in lines] == [0.1, 0.05, 0.025]
    orders = [json.loads(Place(run, r).file("distribute", "order")) for r in (1, 2, 3)]
    assert [order["training"]["learning_rate"] for order in orders] == [0.1, 0.05, 0.025]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "step", "gamma": 0.5}, "step needs step_size"),
    ({"type": "exponential"}, "exponential needs gamma"),
    ({"type": "cosine", "gamma": 0.5}, "gamma is no setting of cosine"),
    ({"type": "warmup_cosine"}, "warmup_cosine needs warmup_rounds"),
    ({"type": "cosine", "min_learning_rate": 0.2}, "is above the learning rate"),
]


@pytest.mark.parametrize(("schedule", "word"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_schedule_that_says_too_little_or_too_much_is_an_error(
    tmp_path: Path, schedule: dict[str, Any], word: str
) -> None:
    with pytest.raises(SpecError, match=word):
        load_job(write_job(tmp_path / "job", hyperparameters={**SGD, "lr_schedule": schedule}))


def stopping(metric: str, patience: int | None, goal: float | None = None, delta: float = 0.0) -> EvaluationRecipe:
    return EvaluationRecipe("h", None, False, (metric,), (), 0.5, metric, goal, patience, delta)


@pytest.mark.parametrize("metric", sorted(HIGHER_IS_BETTER))
def test_training_stops_when_any_metric_is_no_better_in_its_own_direction(metric: str) -> None:
    better = [0.5, 0.6, 0.7] if HIGHER_IS_BETTER[metric] else [0.7, 0.6, 0.5]
    lines = [{metric: value} for value in better]
    assert early_stop(stopping(metric, 2), lines) is None
    assert early_stop(stopping(metric, 2), [*lines, lines[0]]) is None
    assert early_stop(stopping(metric, 2), [*lines, lines[0], lines[2]]) == (
        f"early stopping: no better {metric} in 2 rounds"
    )
    assert early_stop(stopping(metric, None, goal=better[2]), lines) is not None
    assert early_stop(stopping(metric, None, goal=better[2]), lines[:2]) is None


def test_small_changes_are_no_improvement() -> None:
    lines = [{"auc": value} for value in (0.5, 0.505, 0.509, 0.512)]
    assert early_stop(stopping("auc", 3), lines) is None
    assert early_stop(stopping("auc", 3, delta=0.01), lines) is None
    assert early_stop(stopping("auc", 2, delta=0.01), lines[:3]) is not None
    assert early_stop(stopping("auc", 2), [{}, {}, {"auc": 0.1}]) is None
