"""Robust rules: against numpy, SciPy and Flower, and the promises of their papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from fedloom.tasks.aggregation.bounds import too_few
from fedloom.tasks.aggregation.combine import combine
from fedloom.tasks.aggregation.robust import apply_rule, krum_scores
from tests.tasks.aggregation.made import METHODS, flat, recipe, robust, updates

FLOWER = {
    "krum": [0.14987720549106598, 0.7625584602355957, 0.9999118447303772, 0.7451131343841553],
    "multi_krum": [0.25757402394499096, 0.5821545677525657, 0.6202012300491333, 0.35298766129251036],
    "bulyan": [0.28031667570273083, 0.8882873257001241, 0.8813116947809855, 0.26371239963918924],
    "median": [0.14987720549106598, 0.5514267086982727, 0.8366556167602539, 0.2709057927131653],
    "trimmed_mean": [0.1476321443915367, 0.3197505942412785, 0.3700727905545916, 0.2374498305310096],
}
"""Of 11 updates (below), 2 assumed hostile, 0.2 trimmed at each end: from flwr 1.41.0, aggregate_krum (to_keep 0, and
11 - 2 - 2), aggregate_bulyan, aggregate_median and aggregate_trimmed_avg of flwr.server.strategy.aggregate."""


def eleven() -> np.ndarray:
    matrix = np.array([[math.sin(1 + 3 * i + 7 * j) for j in range(4)] for i in range(11)])
    matrix[3] *= -4
    matrix[7] *= 5
    return matrix.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("method", METHODS)
def test_the_rules_are_flowers(method: str) -> None:
    made = combine(recipe(robust=robust(method, hostile=2)), updates(eleven()))
    np.testing.assert_allclose(flat(made.mean), FLOWER[method], rtol=1e-12)


@pytest.mark.parametrize(("count", "ratio"), [(5, 0.2), (10, 0.1), (9, 0.3), (4, 0.49), (7, 0.0)])
def test_the_trimmed_mean_is_scipys(count: int, ratio: float) -> None:
    matrix = np.random.default_rng(count).normal(size=(count, 9)).astype(np.float32).astype(np.float64)
    made = combine(recipe(robust=robust("trimmed_mean", trim_ratio=ratio)), updates(matrix))
    np.testing.assert_allclose(flat(made.mean), trim_mean(matrix, ratio, axis=0), rtol=1e-12)


def test_krum_scores_by_hand() -> None:
    """Five numbers on a line, f = 1: the sums of the squares of the distances to the two nearest others."""
    numbers = np.array([0.0, 1.0, 2.0, 4.0, 10.0])
    squares = np.square(numbers[:, None] - numbers[None, :])
    assert krum_scores(squares, 1).tolist() == [5.0, 2.0, 5.0, 13.0, 100.0]
    assert krum_scores(squares, 1, closest=1).tolist() == [1.0, 1.0, 1.0, 4.0, 36.0]


def test_who_was_chosen_is_told() -> None:
    matrix = [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [10.0, 0.0]]
    assert combine(recipe(robust=robust("krum", 1)), updates(matrix)).weights == {"c001": 1.0}
    assert combine(recipe(robust=robust("multi_krum", 1)), updates(matrix)).weights == {"c000": 0.5, "c001": 0.5}


BOUNDS = [
    ("krum", 1, 5), ("krum", 3, 9), ("multi_krum", 2, 7), ("bulyan", 1, 7), ("bulyan", 3, 15),
    ("krum", None, 3), ("bulyan", None, 3), ("median", None, 1), ("trimmed_mean", None, 1),
]  # fmt: skip


@pytest.mark.parametrize(("method", "hostile", "least"), BOUNDS)
def test_the_bounds_of_the_papers(method: str, hostile: int | None, least: int) -> None:
    rule = robust(method, hostile)
    assert too_few(rule, least) is None
    apply_rule(rule, updates(np.eye(least, 3)))
    if method in ("median", "trimmed_mean"):
        return
    assert str(least) in (too_few(rule, least - 1) or "")
    made = combine(recipe(robust=rule), updates(np.eye(least - 1, 3)))
    assert (made.mean, made.withheld) == ({}, too_few(rule, least - 1))


numbers = st.floats(-1, 1, width=32)
wild = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def crowds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """7 to 9 honest updates of three numbers, and 1 or 2 hostile ones (n >= 4f + 3) that may be anything."""
    hostile = draw(st.integers(1, 2))
    count = draw(st.integers(3 * hostile + 3, 3 * hostile + 5))
    honest = draw(st.lists(st.tuples(numbers, numbers, numbers), min_size=count, max_size=count))
    lies = draw(st.lists(st.tuples(wild, wild, wild), min_size=hostile, max_size=hostile))
    return np.array(honest, dtype=np.float64), np.array(lies, dtype=np.float64)


@settings(max_examples=60)
@given(crowds(), st.sampled_from(METHODS))
def test_hostile_updates_cannot_move_the_result_away_from_the_honest(
    crowd: tuple[np.ndarray, np.ndarray], method: str
) -> None:
    """Median and trimmed mean stay within the honest values of each coordinate, Bulyan within once their width of them.

    Krum may choose a hostile update, but only one that is near: of its n - f - 2 neighbours at least one is honest, and
    its score is no worse than an honest one's, so it is within sqrt(n - f - 2) honest diameters of an honest update.
    """
    honest, lies = crowd
    count, hostile = len(honest) + len(lies), len(lies)
    rule = robust(method, hostile, trim_ratio=hostile / count + 1e-6)
    made = flat(combine(recipe(robust=rule), updates(np.concatenate([lies, honest]))).mean)
    low, high = honest.min(axis=0), honest.max(axis=0)
    if method in ("krum", "multi_krum"):
        squares = np.square(honest[:, None] - honest[None, :]).sum(axis=2)
        reach = math.sqrt(count - hostile - 2) * math.sqrt(squares.max())
        nearest = min(float(np.linalg.norm(made - one)) for one in honest)
        assert nearest <= (reach if method == "krum" else reach + math.sqrt(squares.max())) + 1e-6
        return
    room = high - low if method == "bulyan" else 0.0
    assert bool(((made >= low - room - 1e-6) & (made <= high + room + 1e-6)).all())


@settings(max_examples=40)
@given(crowds(), st.sampled_from([*METHODS, None]), st.randoms(use_true_random=False))
def test_the_order_of_updates_does_not_matter_to_a_bit(
    crowd: tuple[np.ndarray, np.ndarray], method: str | None, luck: object
) -> None:
    given_ = updates(np.concatenate(crowd))
    rule = None if method is None else robust(method, len(crowd[1]))
    first = combine(recipe(robust=rule), given_)
    luck.shuffle(given_)  # type: ignore[attr-defined]
    again = combine(recipe(robust=rule), given_)
    assert flat(first.mean).tobytes() == flat(again.mean).tobytes()
    assert first.weights == again.weights


@settings(max_examples=40)
@given(crowds(), st.sampled_from([*METHODS, None]), st.integers(-1000, 1000))
def test_what_moves_all_updates_moves_the_result(
    crowd: tuple[np.ndarray, np.ndarray], method: str | None, by: int
) -> None:
    matrix = np.round(np.concatenate([crowd[0], np.clip(crowd[1], -8, 8)]) * 256) / 256  # exact in float32 when moved
    rule = None if method is None else robust(method, len(crowd[1]))
    still, moved = (flat(combine(recipe(robust=rule), updates(rows)).mean) for rows in (matrix, matrix + by))
    np.testing.assert_allclose(moved, still + by, rtol=0, atol=1e-9)
