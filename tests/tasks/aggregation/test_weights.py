"""Weights, and bounds on a client's share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedloom.tasks.aggregation.combine import combine
from fedloom.tasks.aggregation.weights import bounded
from tests.tasks.aggregation.made import flat, recipe, update

BOUNDED = [
    ([0.7, 0.2, 0.1], 0.0, 1.0, [0.7, 0.2, 0.1]),
    ([0.7, 0.2, 0.1], 0.0, 0.5, [0.5, 1 / 3, 1 / 6]),  # the rest keep their proportion of 2 to 1
    ([0.7, 0.2, 0.1], 0.2, 1.0, [0.6, 0.2, 0.2]),
    ([0.9, 0.05, 0.05], 0.3, 0.4, [0.4, 0.3, 0.3]),
    ([1.0, 0.0, 0.0], 0.0, 0.5, [0.5, 0.25, 0.25]),  # what one may not have goes to those that have nothing
    ([0.5, 0.5], 0.5, 0.5, [0.5, 0.5]),
    ([1.0, 0.0], 0.0, 0.5, [0.5, 0.5]),
]


@pytest.mark.parametrize(("shares", "low", "high", "expected"), BOUNDED)
def test_shares_within_bounds(shares: list[float], low: float, high: float, expected: list[float]) -> None:
    np.testing.assert_allclose(bounded(np.array(shares), low, high), expected, atol=1e-12)


@given(
    st.lists(st.floats(0, 1e9), min_size=1, max_size=40),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_bounded_shares_keep_bounds_sum_and_order(weights: list[float], low: float, high: float) -> None:
    count, total = len(weights), sum(weights)
    assume(total > 0)
    low, high = low / count, 1 / count + high * (1 - 1 / count)
    shares = np.array(weights) / total
    found = bounded(shares, low, high)
    assert abs(found.sum() - 1) < 1e-9
    assert bool(((found >= low - 1e-12) & (found <= high + 1e-12)).all())
    order = np.argsort(shares, kind="stable")
    assert bool((np.diff(found[order]) >= -1e-12).all())


def test_bounds_that_no_shares_keep_are_a_named_outcome() -> None:
    made = combine(recipe("uniform", share_max=0.4), [update(0, [1.0, 2.0]), update(1, [1.0, 2.0])])
    assert (made.mean, made.withheld) == ({}, "2 shares of 0 to 0.4 do not sum to 1")


def test_no_client_has_more_than_its_bound() -> None:
    given_ = [update(i, [float(i), 1.0], samples=10 ** (i + 1)) for i in range(4)]
    made = combine(recipe("num_samples", share_max=0.4), given_)
    assert max(made.weights.values()) == pytest.approx(0.4)
    assert flat(made.mean)[0] == pytest.approx(sum(i * made.weights[f"c00{i}"] for i in range(4)))


def test_custom_weights_are_shares_where_they_are_not_normalised() -> None:
    given_ = [update(0, [1.0, 2.0], weight=0.5), update(1, [3.0, 4.0], weight=0.25)]
    assert flat(combine(recipe("custom"), given_).mean) == pytest.approx([5 / 3, 8 / 3])
    assert flat(combine(recipe("custom", normalize=False), given_).mean).tolist() == [1.25, 2.0]


def test_a_smaller_loss_counts_more_and_within_limits() -> None:
    given_ = [update(i, [1.0, 2.0], loss=loss) for i, loss in enumerate((0.5, 1.0, 2.0))]
    assert list(combine(recipe("loss_based"), given_).weights.values()) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    liar = [update(0, [1.0, 2.0], loss=0.0), *given_[1:], update(3, [1.0, 2.0], loss=None)]
    shares = combine(recipe("loss_based"), liar).weights
    assert shares["c000"] / shares["c001"] == pytest.approx(100.0)  # of the median, 1.0
    assert shares["c003"] == 0.0


def test_an_update_against_the_others_contributes_nothing() -> None:
    given_ = [update(0, [1.0, 0.0]), update(1, [1.0, 0.0]), update(2, [1.0, 0.1]), update(3, [-5.0, 0.0])]
    made = combine(recipe("contribution"), given_)
    assert made.weights["c003"] == 0.0
    assert made.weights["c000"] == pytest.approx(1 / 3, rel=0.01)
    opposed = combine(recipe("contribution"), [update(0, [1.0, 0.0]), update(1, [-1.0, 0.0])])
    assert opposed.withheld == "no update has a weight by contribution"
