"""Checks of single updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedloom.tasks.aggregation.combine import combine
from fedloom.tasks.aggregation.geometry import median
from fedloom.tasks.aggregation.quality import poisoning_scores
from fedloom.tasks.recipe import CheckRecipe, StalenessRecipe
from tests.tasks.aggregation.made import flat, recipe, update, updates

CROWD = [[3.0, 4.0], [3.0, 4.2], [3.1, 4.0], [2.9, 3.9]]


def checked(check: CheckRecipe, given: list[Any]) -> Any:
    return combine(recipe("uniform", checks=(check,)), given)


DISTANCES = [("l2", 5.0), ("l1", 7.0), ("linf", 4.0)]


@pytest.mark.parametrize(("metric", "distance"), DISTANCES)
def test_distances_to_the_median(metric: str, distance: float) -> None:
    given = updates([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    over = checked(CheckRecipe("parameter_distance", metric, distance - 0.01, "exclude"), given)
    assert [(r.client, r.check) for r in over.excluded] == [("c002", "parameter_distance")]
    assert f"{metric} distance to the median is {distance:.4g}" in over.excluded[0].reason
    assert not checked(CheckRecipe("parameter_distance", metric, distance + 0.01, "exclude"), given).excluded


def test_a_cosine_distance_sees_directions_alone() -> None:
    given = updates([[1.0, 0.0], [50.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    made = checked(CheckRecipe("parameter_distance", "cosine", 0.99, "flag"), given)
    assert [r.client for r in made.flagged] == ["c003", "c004"]
    assert made.participants == 5


def test_a_long_update_is_shortened_to_the_threshold() -> None:
    made = checked(CheckRecipe("gradient_norm", "", 5.0, "clip"), updates([[3.0, 4.0], [30.0, 40.0]]))
    np.testing.assert_allclose(flat(made.mean), [3.0, 4.0], rtol=1e-6)
    assert [(r.client, r.reason) for r in made.clipped] == [("c001", "gradient_norm is 50, at most 5 allowed")]


def test_a_distant_update_is_brought_nearer_to_the_median() -> None:
    given = updates([[1.0, 1.0], [1.0, 1.0], [1.0, 11.0]])
    made = checked(CheckRecipe("parameter_distance", "l2", 3.0, "clip"), given)
    np.testing.assert_allclose(flat(made.mean), [1.0, 2.0], rtol=1e-6)


def test_an_improvement_that_is_too_small_or_unknown() -> None:
    given = [
        update(0, [1.0, 1.0], loss_before=1.0, loss=0.5),
        update(1, [1.0, 1.0], loss_before=1.0, loss=1.2),
        update(2, [1.0, 1.0], loss_before=None),
    ]
    made = checked(CheckRecipe("loss_improvement", "", 0.0, "exclude"), given)
    assert [(r.client, r.reason) for r in made.excluded] == [
        ("c001", "loss_improvement is -0.2, at least 0 wanted"),
        ("c002", "loss_improvement is unknown, at least 0 wanted"),
    ]


@pytest.mark.parametrize(
    "lie",
    [[300.0, 400.0], [-3.0, -4.0], [0.0, 0.0], [4.0, -3.0]],
    ids=["scaled", "flipped", "constant", "another way"],
)
def test_what_stands_out_has_a_high_poisoning_score(lie: list[float]) -> None:
    given = updates([*CROWD, lie])
    scores = poisoning_scores(given, median(given))
    assert scores[4] > 0.8
    assert scores[:4].max() < 0.3


def test_equal_updates_and_few_of_them_do_not_stand_out() -> None:
    for rows in ([[1.0, 1.0]], [[1.0, 1.0], [1.1, 0.9]], [[2.0, 1.0]] * 5, [[0.0, 0.0]] * 3):
        given = updates(rows)
        assert poisoning_scores(given, median(given)).max() < 0.1


def test_a_z_of_three_and_a_half_scores_one_half() -> None:
    """Norms 1, 2, 3 in one direction and one at the limit: the spread is 1.4826 times the median distance."""
    middle, spread = 2.5, 1.4826
    given = updates([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [middle + 3.5 * spread, 0.0]])
    assert poisoning_scores(given, median(given))[3] == pytest.approx(0.5, abs=1e-6)


def test_checks_follow_each_other() -> None:
    """The second check's median is that of the updates which the first one left."""
    given = updates([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0]])
    far = CheckRecipe("parameter_distance", "l2", 1.0, "exclude")
    long = CheckRecipe("gradient_norm", "", 5.0, "exclude")
    first, second = (combine(recipe(checks=checks), given) for checks in ((long, far), (far, long)))
    assert {r.client for r in first.excluded} == {"c002", "c003", "c004"}
    assert second.withheld == "all 5 updates were excluded, most by the check gradient_norm"


@pytest.mark.parametrize(("action", "kept"), [("exclude", 2), ("flag", 3)])
def test_updates_of_earlier_rounds(action: str, kept: int) -> None:
    given = [update(i, [1.0, 1.0], round=5 - i) for i in range(3)]
    made = combine(recipe(staleness=StalenessRecipe(1, action)), given, now=5)
    remarks = made.excluded if action == "exclude" else made.flagged
    assert [(r.client, r.reason) for r in remarks] == [("c002", "it is 2 rounds late, 1 allowed")]
    assert made.participants == kept
    assert combine(recipe(staleness=StalenessRecipe(1, "exclude")), given[1:]).participants == 2  # 4 is the latest


def test_an_update_of_other_tensors_does_not_count() -> None:
    given = [*updates(CROWD), update(9, [1.0, 2.0, 3.0])]
    made = combine(recipe(), given)
    assert [(r.client, r.check) for r in made.excluded] == [("c009", "layout")]


@pytest.mark.parametrize("change", [{"samples": -1}, {"weight": float("nan")}, {"loss": float("inf")}])
def test_figures_that_cannot_be_are_excluded(change: dict[str, Any]) -> None:
    made = combine(recipe(), [*updates(CROWD), update(9, [1.0, 2.0], **change)])
    assert [r.check for r in made.excluded] == ["finite"]
