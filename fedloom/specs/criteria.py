"""A selector's eligibility as a flat list of tests on columns of the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fedloom.specs.fields import Scalar
from fedloom.specs.selector import EligibilityCriteria, Selector

Test = Literal["equals", "one_of", "at_least", "at_most"]
ColumnType = Literal["string", "number", "integer", "boolean"]


@dataclass(frozen=True)
class Column:
    """A fleet column with a meaning that fedloom knows.

    Attributes:
        name: The column's name.
        types: The types that it may have.
        criterion: The key below eligibility_criteria that reads it.
    """

    name: str
    types: frozenset[ColumnType]
    criterion: str


_NUMERIC: frozenset[ColumnType] = frozenset({"number", "integer"})
_COUNTED: frozenset[ColumnType] = frozenset({"integer", "boolean"})
_TEXT: frozenset[ColumnType] = frozenset({"string"})

COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("data_samples", _NUMERIC, "min_data_samples"),
        Column("flight_hours", _NUMERIC, "min_flight_hours"),
        Column("flight_hours_since_last_round", _NUMERIC, "min_flight_hours_since_last_round"),
        Column("data_quality", _NUMERIC, "data_quality_threshold"),
        Column("hardware_healthy", frozenset({"boolean"}), "hardware_health_check"),
        Column("connectivity", _TEXT, "connectivity_requirement"),
        Column("open_ncrs", _COUNTED, "no_open_ncrs"),
        Column("active_alerts", _COUNTED, "no_active_alerts"),
        Column("aircraft_type", _TEXT, "aircraft_types"),
        Column("aircraft_age", _NUMERIC, "aircraft_age_range"),
        Column("geographic_region", _TEXT, "geographic_region"),
    )
}
"""The well-known fleet columns by name."""

_COLUMN_OF = {column.criterion: column.name for column in COLUMNS.values()}
_LINKS = {
    "ground_only": ("ground", "hybrid"),
    "satellite_only": ("satellite", "hybrid"),
    "hybrid": ("hybrid",),
}


@dataclass(frozen=True)
class Criterion:
    """One test that an eligible client passes.

    Attributes:
        path: The place in the selector, e.g. ``eligibility_criteria.min_data_samples``.
        column: The fleet column tested.
        test: How the column's value is compared.
        value: What it is compared with; a tuple for ``one_of``.
    """

    path: str
    column: str
    test: Test
    value: Scalar | tuple[Scalar, ...]

    def accepts(self, value: Scalar | None) -> bool:
        """Whether a client with this value passes; an unknown value (None) never does."""
        if value is None:
            return False
        if self.test == "equals":
            return _same(value, self.value)
        if self.test == "one_of":
            options = self.value if isinstance(self.value, tuple) else (self.value,)
            return any(_same(value, option) for option in options)
        if isinstance(value, str) or isinstance(self.value, str | tuple):
            return False
        return value >= self.value if self.test == "at_least" else value <= self.value


def criteria(selector: Selector) -> tuple[Criterion, ...]:
    """Every test that the selector asks for, in the order of its fields; none for what admits all."""
    return eligibility_tests(selector.eligibility_criteria)


def eligibility_tests(asked: EligibilityCriteria) -> tuple[Criterion, ...]:
    """The same for the criteria alone."""
    return tuple(_criteria(asked))


def needed_columns(selector: Selector) -> dict[str, str]:
    """The fleet column that each part of the selector reads, by its path."""
    how, fairness = selector.selection_algorithm, selector.fairness_policy
    needed = {criterion.path: criterion.column for criterion in criteria(selector)}
    needed |= {f"selection_algorithm.stratify_by.{i}": name for i, name in enumerate(how.stratify_by)}
    if how.algorithm == "weighted_random":
        needed |= {f"selection_algorithm.sampling_weights.{name}": name for name in how.sampling_weights or ()}
    if fairness.enabled and fairness.group_parity is not None and fairness.group_parity.enabled:
        dimensions = fairness.group_parity.dimensions
        needed |= {f"fairness_policy.group_parity.dimensions.{i}": name for i, name in enumerate(dimensions)}
    return needed


def _criteria(asked: EligibilityCriteria) -> Iterator[Criterion]:
    for key, least in (
        ("min_data_samples", asked.min_data_samples),
        ("min_flight_hours", asked.min_flight_hours),
        ("min_flight_hours_since_last_round", asked.min_flight_hours_since_last_round),
        ("data_quality_threshold", asked.data_quality_threshold),
    ):
        if least is not None:
            yield _known(key, "at_least", least)
    if asked.hardware_health_check:
        yield _known("hardware_health_check", "equals", True)
    if asked.connectivity_requirement != "any":
        yield _known("connectivity_requirement", "one_of", _LINKS[asked.connectivity_requirement])
    if asked.no_open_ncrs:
        yield _known("no_open_ncrs", "at_most", 0)
    if asked.no_active_alerts:
        yield _known("no_active_alerts", "at_most", 0)
    if asked.aircraft_types:
        yield _known("aircraft_types", "one_of", asked.aircraft_types)
    if asked.aircraft_age_range is not None:
        if asked.aircraft_age_range.min_years is not None:
            yield _known("aircraft_age_range", "at_least", asked.aircraft_age_range.min_years, ".min_years")
        if asked.aircraft_age_range.max_years is not None:
            yield _known("aircraft_age_range", "at_most", asked.aircraft_age_range.max_years, ".max_years")
    if asked.geographic_region:
        yield _known("geographic_region", "one_of", asked.geographic_region)
    for key, value in asked.custom_criteria.items():
        path = f"eligibility_criteria.custom_criteria.{key}"
        if key.endswith("_min"):
            yield Criterion(path, key.removesuffix("_min"), "at_least", value)
        elif key.endswith("_max"):
            yield Criterion(path, key.removesuffix("_max"), "at_most", value)
        else:
            yield Criterion(path, key, "one_of" if isinstance(value, tuple) else "equals", value)


def _known(key: str, test: Test, value: Scalar | tuple[Scalar, ...], below: str = "") -> Criterion:
    return Criterion(f"eligibility_criteria.{key}{below}", _COLUMN_OF[key], test, value)


def _same(left: object, right: object) -> bool:
    # True == 1 in Python; in a spec a boolean and a number are different values.
    return isinstance(left, bool) == isinstance(right, bool) and left == right
