"""A client's data file as windows that a model can train on.

Whatever is wrong with a file ends in one exception whose message says what and where, because a
client that cannot read its data is a dropout, and its reason is kept as evidence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from fedloom.specs.locations import Location, parse_location, resolve_inside
from fedloom.tasks.group_columns import Column, GroupColumnError, majority, read_column
from fedloom.tasks.memory import shortage
from fedloom.tasks.window_spec import WindowSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SERIES_COLUMN = "series"
"""When a file has this column, no window spans two of its values: they are separate recordings."""

_MAX_WINDOW_BYTES = 8 << 30
_MAX_CLASSES = 1000


class ClientDataError(Exception):
    """Client data that cannot be used. The message is a reason fit for an evidence file."""

    def __str__(self) -> str:
        # A file's column names may hold anything, escape sequences of terminals among it.
        return "".join(char if char.isprintable() else "?" for char in super().__str__())


@dataclass(frozen=True)
class Windows:
    """Windows of one client.

    Attributes:
        x: float32 [windows, window_size, channels].
        y: int64 [windows], the most frequent class in each window (on a tie the larger number), or float32
            [windows], the mean of its true values.
        starts: int64 [windows], the row of the file that each window starts with.
        recordings: int64 [windows], which of the file's recordings each window is of.
        columns: The groups of the windows, by column.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64] | NDArray[np.float32] | None
    starts: NDArray[np.int64] | None = None
    recordings: NDArray[np.int64] | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64]) -> Windows:
        """Some of the windows."""
        return replace(
            self,
            x=self.x[rows],
            y=None if self.y is None else self.y[rows],
            starts=None if self.starts is None else self.starts[rows],
            recordings=None if self.recordings is None else self.recordings[rows],
            columns={name: column.take(rows) for name, column in self.columns.items()},
        )


def read_windows(location: str, root: Path, spec: WindowSpec) -> Windows:
    """Read one client's file and cut it into windows.

    Args:
        location: ``dataset:NAME/FILE``, a path inside root, or an fsspec URL; Parquet or CSV.
        root: Folder that relative paths stay in.
        spec: What to read and how to cut it.

    Raises:
        ClientDataError: The data is missing, unreadable, or not what the spec says.
    """
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    table = _read_table(location, root, spec)
    signals = np.empty((table.num_rows, len(spec.signals)), dtype=np.float32)
    for channel, name in enumerate(spec.signals):
        mean, std = (spec.mean[channel], spec.std[channel]) if spec.mean else (0.0, 1.0)
        signals[:, channel] = _signal(table, name, mean, std)
    starts, recordings = _starts(table, spec)
    size = len(starts) * spec.window_size * len(spec.signals) * 4
    if size > _MAX_WINDOW_BYTES:
        raise ClientDataError(
            f"{len(starts)} windows take {size / 2**30:.1f} GiB, more than {_MAX_WINDOW_BYTES >> 30} GiB; "
            "use a larger stride or split the file"
        )
    if (reason := shortage(size)) is not None:
        raise ClientDataError(f"{len(starts)} windows: {reason}")
    x = sliding_window_view(signals, spec.window_size, axis=0)[starts].transpose(0, 2, 1)
    labelled = spec.label_column is not None and spec.label_column in table.column_names
    y = _targets(table, spec, starts) if labelled else None
    return Windows(np.ascontiguousarray(x), y, starts, recordings, _groups(table, starts, spec))


def _groups(table: pa.Table, starts: NDArray[np.int64], spec: WindowSpec) -> dict[str, Column]:
    try:
        return {name: read_column(table.column(name), name, starts, spec.window_size) for name in spec.group_columns}
    except GroupColumnError as error:
        raise ClientDataError(str(error)) from error


def _targets(table: pa.Table, spec: WindowSpec, starts: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.float32]:
    """What each window is to be predicted as."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    name = str(spec.label_column)
    if spec.numeric:
        values = _signal(table, name, 0.0, 1.0, "label column").astype(np.float64)
        means: NDArray[np.float32] = sliding_window_view(values, spec.window_size)[starts].mean(
            axis=1, dtype=np.float64
        )
        return means.astype(np.float32)
    labels = _classes(table, name, spec.labels) if spec.labels else _labels(table, name)
    return _majority(labels, starts, spec.window_size)


def _read_table(location: str, root: Path, spec: WindowSpec) -> pa.Table:
    """Read the columns that the spec needs, each exactly once in the file."""
    with _open(location, root) as (stream, suffix):
        try:
            columns, read = _csv(stream) if suffix == ".csv" else _parquet(stream)
            needed = list(spec.signals)
            if spec.label_column is not None and not (spec.label_optional and spec.label_column not in columns):
                needed.append(spec.label_column)
            if SERIES_COLUMN in columns:
                needed.append(SERIES_COLUMN)
            needed += spec.group_columns
            needed = list(dict.fromkeys(needed))
            _check_columns(columns, needed)
            table: pa.Table = read(needed)
        except ClientDataError:
            raise
        except Exception as error:  # damaged files and remote stores fail in any way they like
            raise ClientDataError(f"{suffix[1:]} file cannot be read: {_reason(error)}") from error
    if table.num_rows == 0:
        raise ClientDataError("the file has no rows")
    return table


@contextlib.contextmanager
def _open(text: str, root: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Open a location for reading; yields the stream and ".parquet" or ".csv"."""
    try:
        location = parse_location(text)
    except ValueError as error:
        raise ClientDataError(str(error)) from error
    suffix = PurePosixPath(location.path).suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise ClientDataError(f"{text!r} ends neither in .parquet nor in .csv")
    stream = _open_url(location.path) if location.kind == "url" else _open_file(location, root)
    with stream:
        yield stream, suffix


def open_location(text: str, root: Path) -> IO[bytes]:
    """Open what a spec names: a path inside root, ``dataset:NAME/FILE`` or an fsspec URL.

    Raises:
        ClientDataError: when it leads elsewhere or cannot be opened.
    """
    try:
        location = parse_location(text)
    except ValueError as error:
        raise ClientDataError(str(error)) from error
    return _open_url(location.path) if location.kind == "url" else _open_file(location, root)


def _open_file(location: Location, root: Path) -> IO[bytes]:
    from fedloom.tasks.datasets import DatasetError, prepare

    try:
        folder = root if location.dataset is None else prepare(location.dataset)
        path = resolve_inside(folder, location.path)
    except DatasetError as error:
        raise ClientDataError(str(error)) from error
    except ValueError as error:
        raise ClientDataError(f"'{location}' leads out of its folder") from error
    try:
        if path.exists() and not path.is_file():
            raise ClientDataError(f"'{location}' is not a file")
        return path.open("rb")
    except OSError as error:
        raise ClientDataError(f"cannot open '{location}': {_reason(error)}") from error


def _open_url(url: str) -> IO[bytes]:
    import fsspec

    if "::" in url:  # fsspec would chain file systems, and one of them could be this machine's
        raise ClientDataError(f"'{url}' chains file systems ('::'), which is not allowed")
    try:
        stream: IO[bytes] = fsspec.open(url, "rb").open()
    except Exception as error:  # every store has exceptions of its own, from libraries of its own
        raise ClientDataError(f"cannot open '{url}': {_reason(error)}") from error
    return stream


def _parquet(stream: IO[bytes]) -> tuple[list[str], Any]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream)
    return list(file.schema_arrow.names), file.read


def _csv(stream: IO[bytes]) -> tuple[list[str], Any]:
    import pyarrow as pa
    import pyarrow.csv as csv

    data = stream.read()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # pyarrow would find out too, and print a traceback while it reports the row.
        raise ClientDataError(f"csv file cannot be read: byte {error.start} is no UTF-8 text") from None
    odd: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        odd.append(row)
        return "skip"

    # pyarrow's own error quotes the row, and a client's data must not end up in a reason.
    # Rows are numbered only when one thread reads them.
    table = csv.read_csv(
        pa.BufferReader(data), csv.ReadOptions(use_threads=False), csv.ParseOptions(invalid_row_handler=note)
    )
    if odd:
        first = odd[0]
        raise ClientDataError(
            f"row {first.number} has {first.actual_columns} fields, expected {first.expected_columns} "
            f"(the header is row 1; {len(odd)} such rows)"
        )
    return list(table.column_names), table.select


def _check_columns(columns: list[str], needed: list[str]) -> None:
    for name in needed:
        if name not in columns:
            shown = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
            raise ClientDataError(f"there is no column '{name}'; the file has {shown or 'no columns'}")
        if columns.count(name) > 1:
            raise ClientDataError(f"column '{name}' appears {columns.count(name)} times")


def _signal(table: pa.Table, name: str, mean: float, std: float, role: str = "signal") -> NDArray[np.float32]:
    import numpy as np
    import pyarrow as pa

    column = table.column(name)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise ClientDataError(f"{role} '{name}' has type {column.type}, expected numbers")
    # Nulls become NaN, so that one check finds every value that is not a number.
    values = column.cast(pa.float64(), safe=False).to_numpy()
    with np.errstate(over="ignore"):  # an overflow is reported below
        scaled: NDArray[np.float32] = ((values - mean) / std).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scaled))
    if len(bad):
        value = values[bad[0]]
        what = "missing or NaN" if np.isnan(value) else "infinite" if np.isinf(value) else "beyond float32"
        raise ClientDataError(f"{role} '{name}' is {what} in row {bad[0]} (the first row is 0; {len(bad)} such rows)")
    return scaled


def _starts(table: pa.Table, spec: WindowSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First rows of all windows, recording by recording, and the recordings."""
    import numpy as np

    rows = table.num_rows
    edges = np.array([0, rows])
    if SERIES_COLUMN in table.column_names:
        series = table.column(SERIES_COLUMN)
        if series.null_count:
            raise ClientDataError(f"column '{SERIES_COLUMN}' has {series.null_count} missing values")
        values = series.to_numpy()
        edges = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1, [rows]])
    lengths = np.diff(edges)
    if lengths.max() < spec.window_size:
        what = f"{rows} rows" if len(lengths) == 1 else f"at most {lengths.max()} rows in one recording"
        raise ClientDataError(f"{what}, fewer than one window of {spec.window_size}")
    long = lengths >= spec.window_size
    starts = np.concatenate(
        [
            np.arange(first, last - spec.window_size + 1, spec.stride, dtype=np.int64)
            for first, last in zip(edges[:-1][long], edges[1:][long], strict=True)
        ]
    )
    return starts, np.searchsorted(edges, starts, side="right") - 1


def _labels(table: pa.Table, name: str) -> NDArray[np.int64]:
    import numpy as np
    import pyarrow as pa

    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
        raise ClientDataError(f"label column '{name}' has type {column.type}, expected whole numbers")
    if column.null_count:
        raise ClientDataError(f"label column '{name}' has {column.null_count} missing values")
    labels: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    if (negative := np.flatnonzero(labels < 0)).size:
        raise ClientDataError(f"label column '{name}' is {labels[negative[0]]} in row {negative[0]}")
    return labels


def _classes(table: pa.Table, name: str, labels: tuple[int | str, ...]) -> NDArray[np.int64]:
    """The number of each row's class; labels and values are compared as text, so that "1" is 1."""
    import numpy as np
    import pyarrow as pa

    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ClientDataError(f"label column '{name}' has type {kind}, expected text or whole numbers")
    if column.null_count:
        raise ClientDataError(f"label column '{name}' has {column.null_count} missing values")
    encoded = column.combine_chunks().dictionary_encode()
    number = {str(label): i for i, label in enumerate(labels)}
    numbers = np.array([number.get(str(value), -1) for value in encoded.dictionary.to_pylist()], dtype=np.int64)
    classes: NDArray[np.int64] = numbers[encoded.indices.to_numpy()]
    if (unknown := np.flatnonzero(classes < 0)).size:  # the value itself is the client's own
        known = ", ".join(map(str, labels))
        raise ClientDataError(
            f"label column '{name}' is none of {known} in row {unknown[0]} ({unknown.size} such rows)"
        )
    return classes


def _majority(labels: NDArray[np.int64], starts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    import numpy as np

    classes = np.unique(labels)
    if len(classes) > _MAX_CLASSES:
        raise ClientDataError(f"{len(classes)} different labels, more than {_MAX_CLASSES}: not a class label")
    return majority(labels, starts, size)


def _reason(error: BaseException) -> str:
    """One line, without the paths of this machine that an OSError's text carries."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
