import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.deploy.argo.expressions import ExpressionError, evaluate, functions, names, parse, parse_depends

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
VALUES = {"lastRetry.exitCode": "137", "lastRetry.status": "Failed", "cronworkflow.lastScheduledTime": None, "n": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3 - -1", 10),
        ("7 / 2", 3.5),
        ("7 % 3 == 1", True),
        ("!true || not false", True),
        ("true and false or true", True),
        ("'a' == \"a\"", True),
        ("'a' in ['b', 'a']", True),
        ("n > 2 ? 'many' : 'few'", "many"),
        ("asInt(lastRetry.exitCode) != 2", True),
        ("lastRetry.status == 'Failed'", True),
        ("cronworkflow.lastScheduledTime == nil || unknown > 1", True),
        ("false && unknown", False),
        ("now() >= date('2026-11-22T00:00:00Z')", True),
        ("now().In(timezone('Asia/Kolkata')).Hour() * 60 + now().In(timezone('Asia/Kolkata')).Minute()", 480),
        ("now().Weekday().String()", "Sunday"),
        ("int((now() - date('2026-11-15T00:00:00Z')).Hours() / 168) % 2", 1),
        ("(now() - date('2026-11-22T02:29:00Z')).Seconds() > 30", True),
        ("'true' != 'true'", False),
        (" && ".join(["true"] * 1000), True),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert evaluate(parse(text), VALUES, NOW) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends too early"),
        ("1 +", "ends too early"),
        ("(1", "ends too early"),
        ("1 2", "'2' at character 3"),
        ("a # b", "'#' at character 3"),
        ("'open", '"\'" at character 1'),
        ("f(,)", "',' at character 3"),
        ("1.x", "ends too early"),
        ("a.1", "'1' at character 3"),
        ("1" + "-1" * 100, "nested more than"),
        ("(" * 100 + "1" + ")" * 100, "nested more than"),
        ("1" * 9000, "characters, more than"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message.replace("(", r"\(")):
        parse(text)


@pytest.mark.parametrize("text", ["unknown", "1 + 'a'", "1 && true", "exec('x')", "1 / 0", "asInt('x')", "now().Foo()"])
def test_what_cannot_be_evaluated(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(parse(text), VALUES, NOW)


def test_what_is_read_and_called() -> None:
    node = parse("asInt(lastRetry.exitCode) > 1 && [a.b, now().Hour()] != nil")
    assert names(node) == {"lastRetry.exitCode", "a.b"}
    assert functions(node) == {"asInt", "now"}


def test_depends() -> None:
    node = parse_depends("(train-1.AnySucceeded || train-1.AllFailed) && !b.Failed")
    assert names(node) == {"train-1.AnySucceeded", "train-1.AllFailed", "b.Failed"}
    values = {"train-1.AnySucceeded": False, "train-1.AllFailed": True, "b.Failed": False}
    assert evaluate(node, values) is True
    with pytest.raises(ExpressionError):
        parse_depends("a == b")


@given(st.text("ab1.'\"()[]&|!=<>?:,+-*/% \n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse, parse_depends):
        with contextlib.suppress(ExpressionError):
            names(read(text))
