"""Value types that several kinds of spec share. All are strict: a boolean is no number, "5" is no integer."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict, StrictBool, StrictFloat, StrictInt

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_DURATION = re.compile(r"^(\d+)\s+(second|minute|hour|day|week)s?$", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Read a duration such as "8 hours".

    Raises:
        ValueError: The text is not a whole number and a unit, or is longer than a timedelta holds.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a whole number and a unit, such as '8 hours'")
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except (OverflowError, ValueError):
        raise ValueError(f"the duration {text[:40]!r} is too long") from None


def parse_timestamp(text: str) -> datetime:
    """Read an RFC 3339 date and time; the result knows its offset from UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no date and time: {error}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _timestamp(text: str) -> str:
    parse_timestamp(text)
    return text


def _date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no date: {error}") from None
    return text


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Flag = StrictBool
Number = Annotated[float, Strict()]
Positive = Annotated[float, Strict(), Field(gt=0)]
NotNegative = Annotated[float, Strict(), Field(ge=0)]
Rate = Annotated[float, Strict(), Field(ge=0, le=1)]
Natural = Annotated[int, Strict(), Field(ge=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
Scalar = StrictBool | StrictInt | StrictFloat | str
Name = Annotated[str, Field(min_length=1), AfterValidator(_name)]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", json_schema_extra={"format": "email"})]
Date = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d{2}-\d{2}$", json_schema_extra={"format": "date"}),
    AfterValidator(_date),
]
Timestamp = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
        json_schema_extra={"format": "date-time"},
    ),
    AfterValidator(_timestamp),
]
Duration = Annotated[
    str,
    Field(pattern=r"^\d+\s+(seconds?|minutes?|hours?|days?|weeks?)$"),
    AfterValidator(_duration),
]
"""A whole number and a unit, e.g. "8 hours"; kept as written, read with parse_duration."""

# One name each: Literals of the same values in another order are equal to Python, which then may take the one that
# it saw first, and a schema's order would depend on what was imported before.
Comparison = Literal["greater_than", "greater_than_or_equal", "less_than", "less_than_or_equal", "equal"]
Weekday = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ClockTimeUtc = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d( UTC)?$")]
JobKind = Literal["train", "evaluate", "aggregate"]
JobStatus = Literal["draft", "approved", "active", "completed", "failed", "archived"]
Priority = Literal["low", "medium", "high", "critical"]
DpMechanism = Literal["DP-SGD", "DP-FedAvg"]
Channel = Literal["email", "slack", "pagerduty", "webhook"]
AlertSeverity = Literal["info", "warning", "critical"]
