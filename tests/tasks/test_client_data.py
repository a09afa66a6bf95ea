"""Reading client data: the windows that come out, and a clear reason for whatever is wrong."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.tasks.client_data import ClientDataError, Windows, read_windows
from fedloom.tasks.window_spec import WindowSpec

SPEC = WindowSpec(("a", "b"), window_size=3, stride=2, label_column="label")


def columns(rows: int = 10) -> dict[str, object]:
    return {
        "a": np.arange(rows, dtype=np.float32),
        "b": np.arange(rows, dtype=np.float64) * 10,
        "label": np.zeros(rows, dtype=np.int8),
    }


def write(root: Path, name: str = "client.parquet", **changes: object) -> str:
    """Write a sound file with some columns changed, or dropped when the change is None."""
    data = {key: value for key, value in (columns() | changes).items() if value is not None}
    table = pa.table(data)
    if name.lower().endswith(".csv"):
        csv.write_csv(table, root / name)
    else:
        pq.write_table(table, root / name)
    return name


def reason(location: str, root: Path, spec: WindowSpec = SPEC) -> str:
    with pytest.raises(ClientDataError) as caught:
        read_windows(location, root, spec)
    return str(caught.value)


@pytest.mark.parametrize("name", ["client.parquet", "client.csv", "CLIENT.CSV"])
def test_windows_of_a_file(tmp_path: Path, name: str) -> None:
    windows = read_windows(write(tmp_path, name), tmp_path, SPEC)
    assert windows.x.dtype == np.float32
    assert windows.x.shape == (4, 3, 2)
    assert windows.x.flags.c_contiguous
    assert windows.x[1].tolist() == [[2, 20], [3, 30], [4, 40]]
    assert windows.y is not None
    assert windows.y.dtype == np.int64
    assert windows.y.tolist() == [0, 0, 0, 0]


def test_channels_follow_the_spec_and_labels_are_optional(tmp_path: Path) -> None:
    spec = WindowSpec(("b", "a"), 2, 5)
    windows = read_windows(write(tmp_path, label=None), tmp_path, spec)
    assert windows.y is None
    assert windows.x.tolist() == [[[0, 0], [10, 1]], [[50, 5], [60, 6]]]


def test_standardised_with_the_nominal_values(tmp_path: Path) -> None:
    spec = WindowSpec(("a",), 2, 2, None, mean=(4.0,), std=(2.0,))
    windows = read_windows(write(tmp_path), tmp_path, spec)
    assert windows.x[:2, :, 0].tolist() == [[-2.0, -1.5], [-1.0, -0.5]]


def test_small_changes_on_a_large_offset_survive(tmp_path: Path) -> None:
    """Standardising after the conversion to float32 would lose them."""
    name = write(tmp_path, a=1e9 + np.arange(10.0))
    windows = read_windows(name, tmp_path, WindowSpec(("a",), 10, 1, None, mean=(1e9,), std=(1.0,)))
    assert windows.x[0, :, 0].tolist() == list(range(10))


def test_boolean_labels_and_whole_number_signals(tmp_path: Path) -> None:
    name = write(tmp_path, a=np.arange(10), label=[True] * 5 + [False] * 5)
    windows = read_windows(name, tmp_path, SPEC)
    assert windows.y is not None
    assert windows.y.tolist() == [1, 1, 0, 0]


def test_no_window_spans_two_recordings(tmp_path: Path) -> None:
    series = np.array([4, 4, 4, 4, 9, 9, 4, 4, 4, 4], dtype=np.int32)
    windows = read_windows(write(tmp_path, series=series), tmp_path, WindowSpec(("a",), 3, 1))
    assert windows.x[:, 0, 0].tolist() == [0, 1, 6, 7]


def test_recordings_may_have_names(tmp_path: Path) -> None:
    series = ["first"] * 5 + ["second"] * 5
    windows = read_windows(write(tmp_path, series=series), tmp_path, WindowSpec(("a",), 5, 1))
    assert windows.x[:, 0, 0].tolist() == [0, 5]


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    series=st.lists(st.integers(0, 2), min_size=60, max_size=60).map(sorted),
    size=st.integers(1, 8),
    stride=st.integers(1, 9),
)
def test_same_as_cutting_by_hand(
    tmp_path_factory: pytest.TempPathFactory, labels: list[int], series: list[int], size: int, stride: int
) -> None:
    rows = len(labels)
    root = tmp_path_factory.getbasetemp()
    table = {"a": np.arange(rows, dtype=np.float32), "label": labels, "series": series[:rows]}
    pq.write_table(pa.table(table), root / "hypothesis.parquet")
    expected = []
    for recording in sorted(set(series[:rows])):
        own = [row for row in range(rows) if series[row] == recording]
        for start in range(0, len(own) - size + 1, stride):
            cut = own[start : start + size]
            counts = Counter(labels[row] for row in cut)
            expected.append((cut, max(counts, key=lambda label: (counts[label], label))))
    spec = WindowSpec(("a",), size, stride, "label")
    if not expected:
        assert "fewer than one window" in reason("hypothesis.parquet", root, spec)
        return
    windows = read_windows("hypothesis.parquet", root, spec)
    assert windows.y is not None
    assert windows.x[:, :, 0].tolist() == [cut for cut, _label in expected]
    assert windows.y.tolist() == [label for _cut, label in expected]


ROW = np.arange(10.0)


def with_value(value: float) -> np.ndarray:
    return np.where(ROW == 7, value, ROW)


@pytest.mark.parametrize("name", ["client.parquet", "client.csv"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"b": None}, "there is no column 'b'; the file has a, label"),
        ({"label": None}, "there is no column 'label'; the file has a, b"),
        ({"a": ["x"] * 10}, "signal 'a' has type string, expected numbers"),
        ({"a": [True] * 10}, "signal 'a' has type bool, expected numbers"),
        ({"a": with_value(np.nan)}, "signal 'a' is missing or NaN in row 7"),
        ({"b": with_value(np.inf)}, "signal 'b' is infinite in row 7"),
        ({"b": with_value(-np.inf)}, "signal 'b' is infinite in row 7"),
        ({"b": with_value(1e300)}, "signal 'b' is beyond float32 in row 7"),
        ({"a": [None, *range(9)]}, "signal 'a' is missing or NaN in row 0 .* 1 such rows"),
        ({"label": ROW + 0.5}, "label column 'label' has type double, expected whole numbers"),
        ({"label": [None, *[1] * 9]}, "label column 'label' has 1 missing values"),
        ({"label": [0, -1, *[1] * 8]}, "label column 'label' is -1 in row 1"),
        ({"series": [None, *[1] * 9]}, "column 'series' has 1 missing values"),
        ({"series": list(range(10))}, "at most 1 rows in one recording, fewer than one window of 3"),
    ],
)
def test_wrong_content(tmp_path: Path, name: str, changes: dict[str, object], expected: str) -> None:
    message = reason(write(tmp_path, name, **changes), tmp_path)
    assert re.search(expected, message), message


def test_too_few_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns(2)), tmp_path / "two.parquet")
    assert reason("two.parquet", tmp_path) == "2 rows, fewer than one window of 3"


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns(0)), tmp_path / "none.parquet")
    (tmp_path / "none.csv").write_text("a,b,label\n")
    assert reason("none.parquet", tmp_path) == "the file has no rows"
    assert reason("none.csv", tmp_path) == "the file has no rows"


def test_a_column_that_appears_twice(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("a,a,b,label\n1,2,3,0\n")
    assert reason("twice.csv", tmp_path) == "column 'a' appears 2 times"


@pytest.mark.parametrize("name", ["client.parquet", "client.csv"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "file cannot be read" in reason(name, tmp_path)


def test_more_labels_than_classes_could_be(tmp_path: Path) -> None:
    rows = 2000
    pq.write_table(pa.table(columns(rows) | {"label": np.arange(rows)}), tmp_path / "ids.parquet")
    assert "2000 different labels" in reason("ids.parquet", tmp_path)


def test_windows_beyond_memory_are_refused_before_they_are_made(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns(80_000)), tmp_path / "long.parquet")
    spec = WindowSpec(("a", "b"), 40_000, 1)
    assert "use a larger stride" in reason("long.parquet", tmp_path, spec)


def test_truncated_or_damaged_parquet(tmp_path: Path) -> None:
    """Wherever the file was cut or hit, there is a reason or, if the hit spared the data, windows."""
    name = write(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole), 61):
        (tmp_path / name).write_bytes(whole[:length])
        assert "parquet file cannot be read" in reason(name, tmp_path)
    for place in range(0, len(whole), 17):
        (tmp_path / name).write_bytes(whole[:place] + b"\xff\x00\xff" + whole[place + 3 :])
        with contextlib.suppress(ClientDataError):  # anything else is a failure
            assert isinstance(read_windows(name, tmp_path, SPEC), Windows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b,label\n1,2,3\nsecret,2\n", "row 3 has 2 fields, expected 3 (the header is row 1; 1 such rows)"),
        ('a,b,label\n"1,2,3', "there is no column 'a'|csv file cannot be read|fields"),
        ("\x00\x01\x02", "csv file cannot be read"),
        ("a;b;label\n1;2;0\n", "there is no column 'a'; the file has a;b;label"),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "broken.csv").write_text(text)
    message = reason("broken.csv", tmp_path)
    assert any(part in message for part in expected.split("|")), message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("", "empty"),
        ("missing.parquet", "cannot open 'missing.parquet': there is no such file"),
        ("missing/sub/x.csv", "there is no such file"),
        ("folder.csv", "is not a file"),
        ("client.txt", "ends neither in .parquet nor in .csv"),
        ("../outside.parquet", "leads out of its folder"),
        ("link.parquet", "leads out of its folder"),
        ("linked/outside.parquet", "leads out of its folder"),
        ("/etc/passwd.csv", "absolute"),
        ("file:///etc/passwd.csv", "one machine"),
        ("nosuch://bucket/x.parquet", "unknown scheme"),
        ("memory://nothing/x.parquet", "there is no such file"),
        ("zip://x.csv::file:///etc/x.csv", "chains file systems"),
        ("dataset:imu-wach/s01-left.parquet", "did you mean 'imu-watch'"),
        ("dataset:imu-watch/../x.parquet", "leads out of its folder"),
    ],
)
def test_locations_that_cannot_be_read(tmp_path: Path, location: str, expected: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "folder.csv").mkdir()
    write(tmp_path, "outside.parquet")
    (root / "link.parquet").symlink_to(tmp_path / "outside.parquet")
    (root / "linked").symlink_to(tmp_path)
    message = reason(location, root)
    assert expected in message
    assert str(tmp_path) not in message


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link.parquet").symlink_to(tmp_path / write(tmp_path))
    assert len(read_windows("link.parquet", tmp_path, SPEC).x) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is not a file" in reason("pipe.csv", tmp_path)


def test_a_url(tmp_path: Path) -> None:
    name = write(tmp_path)
    fsspec.filesystem("memory").pipe("/clients/one.parquet", (tmp_path / name).read_bytes())
    windows = read_windows("memory://clients/one.parquet", tmp_path, SPEC)
    assert windows.x.tobytes() == read_windows(name, tmp_path, SPEC).x.tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"signals": ()},
        {"signals": ("a", "a")},
        {"window_size": 0},
        {"stride": 0},
        {"mean": (0.0,)},
        {"mean": (0.0, 0.0), "std": (1.0, 0.0)},
        {"mean": (0.0, float("nan")), "std": (1.0, 1.0)},
    ],
)
def test_specs_that_make_no_sense(wrong: dict[str, object]) -> None:
    sound: dict[str, object] = {"signals": ("a", "b"), "window_size": 2, "stride": 1}
    with pytest.raises(ValueError, match="must"):
        WindowSpec(**(sound | wrong))  # type: ignore[arg-type]


def test_the_compiler_can_import_the_spec_without_numpy() -> None:
    heavy = {"numpy", "pyarrow", "fsspec", "torch"}
    code = f"import sys, fedloom.tasks.client_data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
