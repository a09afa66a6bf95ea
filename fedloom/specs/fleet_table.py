"""The rows of a fleet as a CSV or Parquet file has them, before anything is checked."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedloom.specs.problems import Problem, SpecError

MAX_BYTES = 256 << 20
MAX_CLIENTS = 1_000_000


@dataclass(frozen=True)
class Table:
    """A roster in columns.

    Attributes:
        file: The file as the user named it.
        columns: Values by column, all of one length.
        lines: The 1-based line of each row; empty when the file has no lines.
        cells: "text" when values are still to be read from text, "values" when they are typed.
    """

    file: str
    columns: dict[str, list[Any]]
    lines: Sequence[int] = field(default=())
    cells: Literal["text", "values"] = "values"

    def line(self, row: int) -> int:
        """The line of a row, 0 when it has none."""
        return self.lines[row] if self.lines else 0

    def __len__(self) -> int:
        return max((len(values) for values in self.columns.values()), default=0)


def read_table(path: Path, shown: str) -> Table:
    """Read a .csv or .parquet file.

    Raises:
        SpecError: The file cannot be read, is too large, or has no rows.
    """
    try:
        size = os.stat(path).st_size
        if not path.is_file():
            raise _refuse(shown, "is not a regular file")
        if size > MAX_BYTES:
            raise _refuse(shown, f"is too large: {size:,} bytes, a fleet has at most {MAX_BYTES:,}")
        table = _read_parquet(path, shown) if path.suffix.lower() == ".parquet" else _read_csv(path, shown)
    except FileNotFoundError:
        raise _refuse(shown, "there is no such file", "check the path for a typing error") from None
    except OSError as error:
        raise _refuse(shown, f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not len(table):
        raise _refuse(shown, "has no clients", "add at least one row")
    return table


def _read_csv(path: Path, shown: str) -> Table:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refuse(shown, "is not UTF-8 text", "save the file with the encoding UTF-8") from None
    if "\0" in text:
        raise _refuse(shown, "is not CSV: it holds a NUL character")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    problems: list[Problem] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                problems += _header_problems(header, shown, line)
                if problems:
                    break
            elif len(cells) != len(header):
                message = f"the row has {len(cells)} fields, the header has {len(header)}"
                hint = "quote fields that hold a comma"
                problems.append(Problem("error", message, shown, line, 1, hint=hint))
            else:
                rows.append(cells)
                lines.append(line)
    except csv.Error as error:
        problems.append(Problem("error", f"is not CSV: {error}", shown, reader.line_num, 1))
    if not header:
        raise _refuse(shown, "is empty", "begin with the header line: client_id,data,…")
    if len(rows) > MAX_CLIENTS:
        problems = [Problem("error", f"has {len(rows):,} clients; at most {MAX_CLIENTS:,} are read", shown)]
    if problems:
        raise SpecError(problems)
    columns: dict[str, list[Any]] = {name: [row[place].strip() for row in rows] for place, name in enumerate(header)}
    return Table(shown, columns, lines, "text")


def _header_problems(header: list[str], shown: str, line: int) -> list[Problem]:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        message = "the columns are not separated by commas"
        return [Problem("error", message, shown, line, 1, hint="save the file as comma-separated values")]
    problems = []
    for place, name in enumerate(header):
        if not name:
            problems.append(Problem("error", f"column {place + 1} has no name", shown, line, 1))
        elif name in header[:place]:
            problems.append(Problem("error", f"column {name!r} is there twice", shown, line, 1))
    return problems


def _read_parquet(path: Path, shown: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MAX_CLIENTS:
                message = f"has {file.metadata.num_rows:,} clients; at most {MAX_CLIENTS:,} are read"
                raise _refuse(shown, message)
            problems = [
                Problem("error", f"column {column.name!r} has the type {column.type}", shown, hint=hint)
                for column in file.schema_arrow
                if (hint := _type_hint(column.type, pa))
            ]
            names = file.schema_arrow.names
            problems += [
                Problem("error", f"column {name!r} is there twice", shown)
                for name in sorted({name for name in names if names.count(name) > 1})
            ]
            if problems:
                raise SpecError(problems)
            columns = {name: column.to_pylist() for name, column in _columns(file)}
    except (pa.ArrowException, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        hint = "write it with a Parquet writer, or use CSV"
        raise _refuse(shown, f"is no Parquet file: {str(error).splitlines()[0]}", hint) from None
    return Table(shown, columns)


def _columns(file: Any) -> list[tuple[str, Any]]:
    table = file.read()
    return list(zip(table.column_names, table.columns, strict=True))


def _type_hint(kind: Any, pa: Any) -> str | None:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    known = (
        pa.types.is_string(value)
        or pa.types.is_large_string(value)
        or pa.types.is_boolean(value)
        or pa.types.is_integer(value)
        or pa.types.is_floating(value)
        or pa.types.is_null(value)
    )
    return None if known else "use text, integer, floating point or boolean columns"


def _refuse(shown: str, message: str, hint: str | None = None) -> SpecError:
    return SpecError([Problem("error", message, shown, hint=hint)])
