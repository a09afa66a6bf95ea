"""What holds for the models of every kind of spec here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fedloom.specs.base import Section
from fedloom.specs.contract import DataContract
from fedloom.specs.contract_parts import Constraints, DpPolicy, PiiMap, Slas
from fedloom.specs.fields import Count, Date, Email, Flag, Natural, Number, Rate, Timestamp
from fedloom.specs.fleet import FleetSpec
from fedloom.specs.registry import Registry
from fedloom.specs.rollout import Rollout
from fedloom.specs.schedule import Schedule
from fedloom.specs.selector import Selector

MODELS = [Selector, Rollout, Schedule, DataContract, DpPolicy, Constraints, PiiMap, Slas, FleetSpec, Registry]


def undescribed(schema: dict[str, Any]) -> Iterator[str]:
    for name, section in {"": schema, **schema.get("$defs", {})}.items():
        for key, field in section.get("properties", {}).items():
            if not field.get("description") and "$ref" not in field:  # else the section is described
                yield f"{name}.{key}"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_described_for_editors(model: type[Section]) -> None:
    assert list(undescribed(model.model_json_schema(by_alias=True))) == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_section_refuses_unknown_keys(model: type[Section]) -> None:
    schema = model.model_json_schema()
    sections = {model.__name__: schema, **schema.get("$defs", {})}
    is_open = {name for name, section in sections.items() if section.get("additionalProperties") is not False}
    assert is_open <= {"FleetClient", "ServiceLevel"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Flag, 1), (Flag, "true"), (Count, True), (Count, "5"), (Count, 5.0), (Count, 0), (Natural, -1),
        (Natural, False), (Number, True), (Number, "1.5"), (Rate, True), (Rate, "0.5"), (Rate, 1.01), (Rate, -0.01),
        (Timestamp, "2024-11-15"), (Timestamp, "2024-11-15T00:00:00"), (Timestamp, "2024-02-30T00:00:00Z"),
        (Timestamp, "2024-11-15T25:00:00Z"), (Date, "2023-02-29"), (Date, "15.11.2024"), (Email, "nobody"),
        (Email, "a b@c.d"),
    ],
)  # fmt: skip
def test_values_refused(kind: Any, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Flag, False), (Count, 1), (Natural, 0), (Number, 3), (Number, -1.5), (Rate, 0), (Rate, 1.0),
        (Timestamp, "2024-11-15T00:00:00Z"), (Timestamp, "2024-11-15T10:30:00.25+01:00"), (Date, "2024-02-29"),
        (Email, "ml-team@example.org"),
    ],
)  # fmt: skip
def test_values_accepted(kind: Any, value: object) -> None:
    assert TypeAdapter(kind).validate_python(value) == value
