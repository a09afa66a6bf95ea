"""From single updates to one: weights, rules, and what happens to the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.tasks.aggregation.combine import combine
from fedloom.tasks.recipe import CheckRecipe
from tests.tasks.aggregation.made import METHODS, flat, recipe, robust, update, updates


def test_weights_by_samples_and_alike() -> None:
    given = [update(0, [1.0, 2.0], samples=1), update(1, [3.0, 6.0], samples=3)]
    made = combine(recipe("num_samples"), given)
    assert flat(made.mean).tolist() == [2.5, 5.0]
    assert (made.weight, made.samples, made.participants, made.weights) == (4.0, 4, 2, {"c000": 0.25, "c001": 0.75})
    assert flat(combine(recipe("uniform"), given).mean).tolist() == [2.0, 4.0]


def test_the_median_is_numpys() -> None:
    for count in (3, 4):
        matrix = np.random.default_rng(count).normal(size=(count, 7)).astype(np.float32)
        made = combine(recipe(robust=robust("median")), updates(matrix))
        np.testing.assert_array_equal(flat(made.mean), np.median(matrix.astype(np.float64), axis=0))


@pytest.mark.parametrize("method", [None, "median"])
def test_nothing_that_an_update_holds_raises(method: str | None) -> None:
    given = updates([[1.0, 2.0], [np.nan, 1.0], [np.inf, 0.0]])
    made = combine(recipe("uniform", robust=None if method is None else robust(method)), given)
    assert flat(made.mean).tolist() == [1.0, 2.0]
    assert [(r.client, r.check) for r in made.excluded] == [("c001", "finite"), ("c002", "finite")]


wild = st.floats(width=32)
CHECKS = tuple(
    CheckRecipe(name, metric, 0.5, action)
    for name, metric in (("gradient_norm", ""), ("parameter_distance", "l1"), ("data_poisoning_score", ""))
    for action in ("flag", "clip" if name != "data_poisoning_score" else "exclude")
)


@given(
    st.lists(st.tuples(wild, wild, wild), max_size=8),
    st.sampled_from([*METHODS, None]),
    st.sampled_from(["num_samples", "custom", "loss_based", "contribution"]),
    st.booleans(),
    st.floats(),
)
def test_whatever_arrives_there_is_a_finite_mean_or_a_reason(
    rows: list[tuple[float, ...]], method: str | None, weights: str, checked: bool, figure: float
) -> None:
    given_ = [
        update(i, row, loss=figure if i % 2 else 1.0, weight=figure if i % 3 else 1.0) for i, row in enumerate(rows)
    ]
    rule = None if method is None else robust(method)
    made = combine(recipe(weights, robust=rule, checks=CHECKS if checked else ()), given_)
    assert (made.withheld is None) == bool(made.mean)
    assert bool(np.isfinite(flat(made.mean)).all()) if made.mean else made.withheld
    assert made.participants + len(made.excluded) == len(rows)


def test_where_all_are_excluded_the_reason_is_told() -> None:
    made = combine(recipe(), updates([[np.nan, 1.0]]))
    assert (made.mean, made.participants) == ({}, 0)
    assert made.withheld == "all 1 updates were excluded, most by the check finite"
    assert combine(recipe(), []).withheld == "no update arrived"
