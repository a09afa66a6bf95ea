"""From single updates to one: weights, rules, and what happens to the rest."""

from __future__ import annotations

import numpy as np
import pytest

from fedloom.tasks.aggregation.combine import combine
from tests.tasks.aggregation.made import flat, recipe, robust, update, updates


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


def test_where_all_are_excluded_the_reason_is_told() -> None:
    made = combine(recipe(), updates([[np.nan, 1.0]]))
    assert (made.mean, made.participants) == ({}, 0)
    assert made.withheld == "all 1 updates were excluded, most by the check finite"
    assert combine(recipe(), []).withheld == "no update arrived"
