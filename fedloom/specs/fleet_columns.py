"""From the rows of a roster to typed columns, with every problem and its line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedloom.specs.criteria import COLUMNS, ColumnType
from fedloom.specs.fleet_table import Table
from fedloom.specs.locations import escapes, parse_location
from fedloom.specs.problems import Problem

CLIENT_ID = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
COLUMN_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
KEYS = ("client_id", "data")
Value = str | float | int | bool | None

_SHOWN = 20
_INTEGER = re.compile(r"^-?(0|[1-9]\d{0,17})$", re.ASCII)
_NUMBER = re.compile(r"^[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf|infinity)$", re.ASCII | re.IGNORECASE)
_BOOLEAN = {"true": True, "false": False}
_CLIENT_ID = re.compile(CLIENT_ID)
_COLUMN_NAME = re.compile(COLUMN_NAME)


class Findings:
    """Problems of a roster; of each sort the first few are kept and the rest are counted."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._kept: dict[str, list[Problem]] = {}
        self._count: dict[str, int] = {}

    def add(self, sort: str, row: int | None, path: str, message: str, hint: str | None = None) -> None:
        """Record a problem of a sort, found in a row or in the whole table."""
        self._count[sort] = self._count.get(sort, 0) + 1
        kept = self._kept.setdefault(sort, [])
        if len(kept) >= _SHOWN:
            return
        line = self._table.line(row) if row is not None else 0
        place = path if row is None or line else f"row {row + 1}, {path}"
        kept.append(Problem("error", message, self._table.file, line, 1 if line else 0, place, hint))

    def problems(self) -> list[Problem]:
        """All kept problems in the order of their lines, then how many were left out."""
        kept = [problem for problems in self._kept.values() for problem in problems]
        found = sorted(kept, key=lambda problem: problem.line)
        for sort, count in self._count.items():
            if count > _SHOWN:
                rest = f"{count - _SHOWN:,} more problems of this sort: {sort}"
                found.append(Problem("error", rest, self._table.file))
        return found


def check_keys(table: Table, root: Path, findings: Findings) -> None:
    """Check client ids and data locations."""
    for key in KEYS:
        if key not in table.columns:
            near = difflib.get_close_matches(key, table.columns, 1)
            hint = f"did you mean {near[0]!r}?" if near else "every client has an id and a data location"
            findings.add("column", None, "", f"column {key!r} is missing", hint)
    first: dict[str, int] = {}
    for row, client in enumerate(table.columns.get("client_id", ())):
        if client is None or client == "":
            findings.add("client_id", row, "client_id", "the client id is empty")
        elif not isinstance(client, str) or not _CLIENT_ID.fullmatch(client):
            hint = "1 to 128 letters, digits, '.', '_' and '-', not beginning with a dot"
            findings.add("client_id", row, "client_id", f"{client!r} is no client id", hint)
        elif client in first:
            message = f"client {client!r} is there twice, first in {_row_name(table, first[client])}"
            findings.add("duplicate client", row, "client_id", message, "client ids must be unique")
        else:
            first[client] = row
    _check_locations(table, root, findings)


def _check_locations(table: Table, root: Path, findings: Findings) -> None:
    files: dict[str, int] = {}
    hint = "write a relative path, dataset:NAME/FILE or a URL such as s3://bucket/file.parquet"
    for row, text in enumerate(table.columns.get("data", ())):
        if text is None or text == "":
            findings.add("data", row, "data", "the data location is missing", hint)
            continue
        if not isinstance(text, str):
            findings.add("data", row, "data", f"{text!r} is no data location", hint)
            continue
        try:
            location = parse_location(text)
        except ValueError as error:
            findings.add("data", row, "data", str(error), hint)
            continue
        if location.kind == "file":
            files.setdefault(location.path, row)
    for path in sorted(escapes(root, list(files))):
        message = f"{path!r} leads out of the fleet's folder by a symbolic link"
        findings.add("data", files[path], "data", message, "keep the data below the fleet file")


def typed_columns(
    table: Table, declared: Mapping[str, ColumnType] | None, findings: Findings
) -> dict[str, tuple[Value, ...]]:
    """The attribute columns with values of one type each; problems go to findings."""
    names = [name for name in table.columns if name not in KEYS]
    if declared is not None:
        _check_declared(names, declared, findings)
    read = _from_text if table.cells == "text" else _from_values
    columns = {}
    for name in names:
        if not _COLUMN_NAME.fullmatch(name):
            hint = "letters, digits and '_', not beginning with a digit"
            findings.add("column name", None, name, f"{name!r} is no column name", hint)
            continue
        columns[name] = read(name, table.columns[name], (declared or {}).get(name), findings)
    return columns


def _check_declared(names: list[str], declared: Mapping[str, ColumnType], findings: Findings) -> None:
    for name in names:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"add '{name}: TYPE' to attributes"
            findings.add("undeclared attribute", None, name, f"attributes does not declare {name!r}", hint)
    for name in declared:
        if name not in names:
            message = f"attributes declares {name!r}, but no client has it"
            findings.add("unused attribute", None, f"attributes.{name}", message)


def _from_text(name: str, cells: list[str], declared: ColumnType | None, findings: Findings) -> tuple[Value, ...]:
    kind = declared or _text_type(cells)
    if kind is None:
        _report_mixed(name, [_text_type([cell]) if cell else None for cell in cells], findings)
        return ()
    if not _allowed(name, kind, any(cells), findings):
        return ()
    values: list[Value] = []
    for row, cell in enumerate(cells):
        if not cell:
            values.append(None)
        elif kind == "string":
            values.append(cell)
        elif kind == "boolean" and cell.lower() in _BOOLEAN:
            values.append(_BOOLEAN[cell.lower()])
        elif kind == "integer" and _INTEGER.fullmatch(cell):
            values.append(int(cell))
        elif kind == "number" and _NUMBER.fullmatch(cell):
            values.append(_finite(name, row, float(cell), findings))
        else:
            findings.add(f"values of {name}", row, name, f"{cell!r} is not of the type {kind}")
    return tuple(values)


def _text_type(cells: list[str]) -> ColumnType | None:
    """The narrowest type that all cells have; None when some are numbers and some are not."""
    filled = [cell for cell in cells if cell]
    if not filled:
        return "string"
    if all(map(_INTEGER.fullmatch, filled)):
        return "integer"
    numbers = sum(1 for cell in filled if _NUMBER.fullmatch(cell))
    booleans = sum(1 for cell in filled if cell.lower() in _BOOLEAN)
    if numbers == len(filled):
        return "number"
    if booleans == len(filled):
        return "boolean"
    return None if numbers or booleans else "string"


def _from_values(name: str, cells: list[Any], declared: ColumnType | None, findings: Findings) -> tuple[Value, ...]:
    kinds = [_value_type(cell) for cell in cells]
    found = {kind for kind in kinds if kind is not None}
    if found == {"integer", "number"}:
        found = {"number"}
    if len(found) > 1:
        _report_mixed(name, kinds, findings)
        return ()
    actual: ColumnType = found.pop() if found else declared or "string"
    fits = declared in (None, actual) or (declared, actual) == ("number", "integer")
    if not fits:
        row = next(row for row, kind in enumerate(kinds) if kind is not None)
        message = f"{cells[row]!r} is not of the type {declared}, which attributes declares"
        findings.add(f"values of {name}", row, name, message)
        return ()
    kind = declared or actual
    if not _allowed(name, kind, any(value is not None for value in kinds), findings):
        return ()
    if kind != "number":
        return tuple(cells)
    return tuple(None if cell is None else _finite(name, row, float(cell), findings) for row, cell in enumerate(cells))


def _value_type(value: Any) -> ColumnType | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "number" if isinstance(value, float) else "string"


def _finite(name: str, row: int, value: float, findings: Findings) -> float:
    if not math.isfinite(value):
        hint = "leave the value out where it is not known"
        findings.add(f"values of {name}", row, name, f"{value} is not a finite number", hint)
    return value


def _allowed(name: str, kind: ColumnType, any_value: bool, findings: Findings) -> bool:
    known = COLUMNS.get(name)
    if known is None or not any_value or kind in known.types:
        return True
    message = f"column {name!r} is {kind}, but must be {' or '.join(sorted(known.types))}"
    findings.add("column type", None, name, message, f"eligibility_criteria.{known.criterion} reads it")
    return False


def _report_mixed(name: str, kinds: list[ColumnType | None], findings: Findings) -> None:
    filled = [kind for kind in kinds if kind is not None]
    odd = min(set(filled), key=lambda kind: (filled.count(kind), kind))
    common = max(set(filled), key=lambda kind: (filled.count(kind), kind))
    hint = f"declare the column in the fleet's YAML file: attributes: {{{name}: string}}"
    message = f"column {name!r} mixes types: this value is {odd}, others are {common}"
    findings.add(f"values of {name}", kinds.index(odd), name, message, hint)


def _row_name(table: Table, row: int) -> str:
    line = table.line(row)
    return f"line {line}" if line else f"row {row + 1}"
