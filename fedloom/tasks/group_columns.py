"""Columns of held-out data that sort its windows into groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]

MAX_GROUPS = 100
"""Text columns with more values are no groups."""
MAX_WHOLE = 20
"""Whole numbers with more values are binned by quartiles, as other numbers are."""
MISSING = "(missing)"


class GroupColumnError(Exception):
    """A column that cannot sort windows into groups. The message says why, and quotes no value."""


@dataclass(frozen=True)
class Column:
    """The groups of a column and, for each window, which of them it is in.

    Attributes:
        values: Names of the groups; some may have no window.
        codes: int64 [windows], positions in ``values``.
    """

    values: tuple[str, ...]
    codes: Codes

    def take(self, rows: Codes) -> Column:
        """The column of some of the windows."""
        return Column(self.values, self.codes[rows])


def read_column(column: pa.ChunkedArray, name: str, starts: Codes, size: int) -> Column:
    """Sort windows into the groups of a column.

    Text, booleans and whole numbers of at most `MAX_WHOLE` values name their groups, and a window is in that of its
    most frequent value (on a tie, the last in order). Other numbers are binned by the quartiles of the windows' means.

    Args:
        column: The column's values, one a row of the file.
        name: Its name.
        starts: int64 [windows], first row of each window.
        size: Rows in a window.

    Raises:
        GroupColumnError: when the column has another type, or too many values.
    """
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    column = column.cast(kind)
    if pa.types.is_floating(kind):
        return _binned(column, starts, size)
    if pa.types.is_integer(kind):
        return _named(column, starts, size) if len(column.unique()) <= MAX_WHOLE else _binned(column, starts, size)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
        raise GroupColumnError(f"column '{name}' has type {kind}; groups come from text, booleans and numbers")
    count = len(column.unique())
    if count > MAX_GROUPS:
        raise GroupColumnError(f"column '{name}' has {count} different values, more than {MAX_GROUPS}: no groups")
    return _named(column, starts, size)


def _named(column: pa.ChunkedArray, starts: Codes, size: int) -> Column:
    import numpy as np

    encoded = column.combine_chunks().dictionary_encode()
    known = encoded.dictionary.to_pylist()
    names = [_printable(str(value).lower() if isinstance(value, bool) else str(value)) for value in known]
    order = sorted(range(len(known)), key=lambda code: known[code])
    values = tuple(dict.fromkeys([*(names[code] for code in order), *([MISSING] if column.null_count else [])]))
    at = np.array([*(values.index(name) for name in names), len(values) - 1])  # the last is what is missing
    rows = at[encoded.indices.fill_null(len(names)).to_numpy()]
    return Column(values, majority(rows, starts, size))


def _binned(column: pa.ChunkedArray, starts: Codes, size: int) -> Column:
    import numpy as np
    import pyarrow as pa

    rows = column.cast(pa.float64(), safe=False).to_numpy()
    finite = np.isfinite(rows)
    total, known = (np.concatenate([[0], np.cumsum(part)]) for part in (np.where(finite, rows, 0.0), finite))
    means = (total[starts + size] - total[starts]) / size
    whole = known[starts + size] - known[starts] == size
    edges = np.unique(np.quantile(means[whole], [0.25, 0.5, 0.75])) if whole.any() else np.empty(0)
    codes = np.where(whole, np.searchsorted(edges, means, side="right"), len(edges) + 1)
    present, codes = np.unique(codes, return_inverse=True)
    values = [*_bins(edges.tolist()), MISSING]
    return Column(tuple(values[code] for code in present), codes.astype(np.int64))


def _bins(edges: list[float]) -> list[str]:
    if not edges:
        return ["all"]
    shown = [f"{edge:.4g}" for edge in edges]
    if len(set(shown)) < len(shown):
        shown = [repr(edge) for edge in edges]
    inner = [f"{low} to {high}" for low, high in pairwise(shown)]
    return [f"below {shown[0]}", *inner, f"{shown[-1]} or more"]


def majority(codes: Codes, starts: Codes, size: int) -> Codes:
    """The most frequent code in each window, the larger one on a tie.

    Args:
        codes: int64 [rows], not negative.
        starts: int64 [windows], first row of each window.
        size: Rows in a window.
    """
    import numpy as np

    winner = np.zeros(len(starts), dtype=np.int64)
    most = np.zeros(len(starts), dtype=np.int64)
    for code in np.unique(codes):  # ascending, so that >= gives ties to the larger code
        seen = np.concatenate([[0], np.cumsum(codes == code)])
        count = seen[starts + size] - seen[starts]
        winner, most = np.where(count >= most, code, winner), np.maximum(count, most)
    return winner


def _printable(text: str) -> str:
    """A file may hold anything, escape sequences of terminals among it."""
    return "".join(char if char.isprintable() else "?" for char in text)
