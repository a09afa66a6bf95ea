"""Scores: each component from its source, between 0 and 1, and a named reason where it cannot be computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedloom.tasks.recipe import ColumnWeight
from fedloom.tasks.selection.eligibility import Reasons
from fedloom.tasks.selection.scores import score_reasons, scores
from fedloom.tasks.selection.tally import Tally, empty_tally
from tests.tasks.selection.recipes import fleet, recipe

ALL = np.ones(4, dtype=bool)
ROSTER = fleet(
    data_samples=(100, 50, 0, 200),
    data_quality=(1.0, 0.5, 0.0, 0.25),
    operator=("a", "a", "a", "b"),
    kind=("x", "y", "x", None),
)


def figures(**columns: list[float]) -> Tally:
    made = empty_tally(4, "2026-11-24T00:00:00+00:00", None)
    for name, values in columns.items():
        made.figures[name][:] = values
    return made


NAN = float("nan")


@pytest.mark.parametrize(
    ("component", "rarity", "tally", "expected"),
    [
        ("quantity", (), None, [0.5, 0.25, 0.0, 1.0]),
        ("quality", (), None, [1.0, 0.5, 0.0, 0.25]),
        ("diversity", ("operator",), None, [1 / 3, 1 / 3, 1 / 3, 1.0]),
        # operator: .25 .25 .25 .75; kind: .5 .75 .5, and an unknown value is not rare
        ("diversity", ("operator", "kind"), None, [0.75, 1.0, 0.75, 0.75]),
        ("contribution", (), {"contribution": [4.0, 2.0, NAN, 0.0]}, [1.0, 0.5, 0.5, 0.0]),
        ("loss_gradient", (), {"norm": [1.0, NAN, NAN, 2.0]}, [0.5, 0.75, 0.75, 1.0]),
        ("loss_gradient", (), {}, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_components(component: str, rarity: tuple[str, ...], tally: Any, expected: list[float]) -> None:
    wanted = recipe(algorithm="importance_sampling", score=((component, 1.0),), rarity=rarity)
    past = None if tally is None else figures(**tally)
    assert scores(ROSTER, wanted, ALL, past).tolist() == pytest.approx(expected)


def test_a_column_of_diversity_is_taken_as_it_is() -> None:
    wanted = recipe(algorithm="importance_sampling", score=(("diversity", 1.0),))
    assert scores(fleet(data_diversity=(0.2, 0.9)), wanted, np.ones(2, dtype=bool), None).tolist() == [0.2, 0.9]


def test_the_usual_score_adds_up_its_components() -> None:
    wanted = recipe(
        algorithm="importance_sampling",
        score=(("quantity", 0.4), ("quality", 0.3), ("diversity", 0.3)),
        rarity=("operator",),
    )
    expected = [0.2 + 0.3 + 0.1, 0.1 + 0.15 + 0.1, 0.1, 0.4 + 0.075 + 0.3]
    assert scores(ROSTER, wanted, ALL, None).tolist() == pytest.approx(expected)


def test_components_are_normalised_over_the_eligible() -> None:
    wanted = recipe(algorithm="importance_sampling", score=(("quantity", 1.0),))
    eligible = np.array([True, True, True, False])
    assert scores(ROSTER, wanted, eligible, None).tolist() == [1.0, 0.5, 0.0, 0.0]


def test_sampling_weights_by_value_and_by_column() -> None:
    weights = (
        ColumnWeight("data_samples", 0.5, ()),
        ColumnWeight("data_quality", 1.0, ()),
        ColumnWeight("operator", None, (("a", 0.5), ("b", 2.0))),
    )
    wanted = recipe(algorithm="weighted_random", sampling_weights=weights)
    expected = [0.5 * (0.25 + 1.0), 0.5 * (0.125 + 0.5), 0.0, 2.0 * (0.5 + 0.25)]
    assert scores(ROSTER, wanted, ALL, None).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("way", "columns", "reasons"),
    [
        (
            {"score": (("quantity", 1.0),), "algorithm": "importance_sampling"},
            {"data_samples": (5, None, -3)},
            [
                "",
                "data_samples is unknown (importance_sampling)",
                "data_samples -3 is negative (importance_sampling)",
            ],
        ),
        (
            {"score": (("quality", 1.0),), "algorithm": "importance_sampling"},
            {"data_quality": (1.0, 1.5, -0.1)},
            [
                "",
                "data_quality 1.5 is above 1 (importance_sampling)",
                "data_quality -0.1 is negative (importance_sampling)",
            ],
        ),
        (
            {"sampling_weights": (ColumnWeight("kind", None, (("A", 1.0), ("B", 0.0))),)},
            {"kind": ("A", "B", "C", None)},
            [
                "",
                "kind B has no weight above 0 (sampling_weights)",
                "kind C has no weight above 0 (sampling_weights)",
                "kind is unknown (sampling_weights)",
            ],
        ),
        (
            {"sampling_weights": (ColumnWeight("ok", None, (("true", 1.0),)),)},
            {"ok": (True, False)},
            ["", "ok False has no weight above 0 (sampling_weights)"],
        ),
        (
            {"sampling_weights": (ColumnWeight("hours", 1.0, ()),)},
            {"hours": (1.5, None, -2.0)},
            ["", "hours is unknown (sampling_weights)", "hours -2.0 is negative (sampling_weights)"],
        ),
    ],
)
def test_a_score_that_cannot_be_computed_is_a_reason(
    way: dict[str, Any], columns: dict[str, tuple[Any, ...]], reasons: list[str]
) -> None:
    found = Reasons(len(reasons))
    score_reasons(fleet(**columns), recipe(**way), found)
    assert [found.text(row) for row in range(len(reasons))] == reasons
