from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedloom.tasks.client_data import ClientDataError, read_windows
from fedloom.tasks.group_columns import MISSING, Column
from fedloom.tasks.window_spec import WindowSpec


def read(tmp_path: Path, values: Any, size: int = 2, columns: tuple[str, ...] = ("g",)) -> Column:
    table = pa.table({"a": np.zeros(len(values)), "g": values})
    pq.write_table(table, tmp_path / "data.parquet")
    spec = WindowSpec(("a",), size, size, group_columns=columns)
    return read_windows("data.parquet", tmp_path, spec).columns["g"]


@pytest.mark.parametrize(
    ("values", "groups", "of"),
    [
        (["x", "x", "y", "y"], ("x", "y"), ["x", "y"]),
        (["x", "y", "y", "x"], ("x", "y"), ["y", "y"]),  # a tie: the last in order
        ([True, True, False, False], ("false", "true"), ["true", "false"]),
        ([3, 3, 1, 1], ("1", "3"), ["3", "1"]),
        (["x", "x", None, None], ("x", MISSING), ["x", MISSING]),
        (["x", "x", "y", "z"], ("x", "y", "z"), ["x", "z"]),
        (["a\x1b[31m", "a\x1b[31m"], ("a?[31m",), ["a?[31m"]),
        (pa.array(["x", "x", "y", "y"]).dictionary_encode(), ("x", "y"), ["x", "y"]),
    ],
)
def test_a_window_is_in_the_group_of_its_most_frequent_value(
    tmp_path: Path, values: Any, groups: tuple[str, ...], of: list[str]
) -> None:
    column = read(tmp_path, values)
    assert column.values == groups
    assert [column.values[code] for code in column.codes] == of


def test_numbers_are_binned_by_quartiles(tmp_path: Path) -> None:
    column = read(tmp_path, np.repeat(np.arange(100) / 4, 2))
    assert column.values == ("below 6.188", "6.188 to 12.38", "12.38 to 18.56", "18.56 or more")
    assert np.bincount(column.codes).tolist() == [25, 25, 25, 25]


def test_many_whole_numbers_are_numbers(tmp_path: Path) -> None:
    assert len(read(tmp_path, np.repeat(np.arange(100), 2)).values) == 4


def test_bins_that_no_window_is_in_are_no_groups(tmp_path: Path) -> None:
    column = read(tmp_path, [1.0] * 18 + [float("nan"), 2.0])
    assert column.values == ("1 or more", MISSING)
    assert np.bincount(column.codes).tolist() == [9, 1]


@pytest.mark.parametrize(
    ("values", "columns", "reason"),
    [
        ([f"v{i}" for i in range(202)], ("g",), "202 different values, more than 100"),
        (pa.array([1, 2], pa.timestamp("s")), ("g",), "type timestamp"),
        (["x", "y"], ("other",), "there is no column 'other'"),
    ],
)
def test_a_column_that_forms_no_groups_is_named(
    tmp_path: Path, values: Any, columns: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ClientDataError, match=reason):
        read(tmp_path, values, columns=columns)
