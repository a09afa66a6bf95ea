"""Eligibility as an expression: checked against the fleet's columns before anything runs, and never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedloom.specs.fleet import Fleet
from fedloom.specs.where import WhereError, check_syntax, compile_where

FLEET = Fleet(
    "f",
    "1.0.0",
    Path(),
    ("a", "b", "c"),
    ("a.csv", "b.csv", "c.csv"),
    {
        "samples": (10, 20, None),
        "quality": (0.5, None, 1.0),
        "operator": ("north", "south", None),
        "healthy": (True, False, True),
        "nothing": (None, None, None),
    },
)
FALSE = "the expression is false (where)"


@pytest.mark.parametrize(
    ("text", "refusals"),
    [
        ("samples > 10", [FALSE, "", "samples is unknown (where)"]),
        ("samples > 10 || quality > 0.6", [FALSE, "", ""]),  # what decides is known
        ("samples > 10 && quality > 0.6", [FALSE, "quality is unknown (where)", "samples is unknown (where)"]),
        ('operator in ["north", "east"]', ["", FALSE, "operator is unknown (where)"]),
        ('operator.startsWith("no") && healthy', ["", FALSE, "operator is unknown (where)"]),
        ("!healthy", [FALSE, "", FALSE]),
        ("double(samples) * quality >= 5.0", ["", "quality is unknown (where)", "samples is unknown (where)"]),
        ("true", ["", "", ""]),
        ("nothing > 3", ["nothing is unknown (where)"] * 3),
        ("samples / (samples - 10) > 0", ["the expression has no value: INVALID_ARGUMENT: divide by zero (where)"]),
        ('operator.matches("(")', ["the expression has no value: INVALID_ARGUMENT: invalid regular expression"]),
    ],
)
def test_every_client_gets_an_answer(text: str, refusals: list[str]) -> None:
    found = list(compile_where(text, FLEET).refusals(FLEET))
    assert len(found) == 3
    for answer, expected in zip(found, refusals, strict=False):
        assert answer.startswith(expected)
        assert bool(answer) == bool(expected)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("samples >", "line 1, column 10 of the expression: Syntax error", None),
        ("sampels > 3", "undeclared reference to 'sampels'", "did you mean 'samples'?"),
        ("samples > 3.5", "'_>_' applied to '(int, double)'", "write 3.0 for a column of numbers"),
        ("quality > 1", "'_>_' applied to '(double, int)'", "write 3.0 for a column of numbers"),
        ("quality\n  > 'x'", "line 2, column 3 of the expression", None),
        ("healthy == 1", "'(bool, int)'", None),
        ("samples", "the expression is of the type int, and must be a bool", None),
        (
            "quality > 1 && oprator == 'x'",
            "column 16 of the expression: undeclared reference to 'oprator'",
            "write 3.0",
        ),
        ("import os", "reserved identifier: import", None),
    ],
)
def test_what_does_not_fit_the_columns_is_an_error_with_its_place(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(WhereError) as caught:
        compile_where(text, FLEET)
    assert message in str(caught.value)
    assert hint is None or (caught.value.hint or "").startswith(hint)


def test_without_a_fleet_the_syntax_is_checked() -> None:
    check_syntax("anything > 3 && other == 'x'")
    with pytest.raises(WhereError, match="line 1, column 11 of the expression: Syntax error"):
        check_syntax("anything >")
