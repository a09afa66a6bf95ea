"""The imu-watch data set: what is injected, and that it is the same everywhere."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedloom.tasks import datasets, imu_watch

CONTENT_SHA256 = "0aecb6300a87108e73fb682c5afd90e3f9a99cb53cfe37a9d9433e5933c3ff17"


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return datasets.prepare(imu_watch.NAME)
    except datasets.DatasetError as error:
        pytest.skip(f"the source wheel cannot be had here: {error}")


def recording(samples: int, series: int = 0, subject: int = 1, side: int = 0) -> imu_watch.Recording:
    signals = np.random.default_rng(series).normal(size=(samples, 6))
    return imu_watch.Recording(series, subject, side, 3, signals)


def stretches(labels: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(labels)) + 1
    return np.diff([0, *edges, len(labels)]).tolist()


def test_every_client_has_its_file_and_the_manifest_tells_the_truth(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    clients = {f"s{subject:02d}-{side}.parquet" for subject in range(1, 11) for side in ("left", "right")}
    clean = {name.replace(".parquet", "-clean.parquet") for name in clients}
    assert set(manifest["files"]) == clients | clean | {"holdout.parquet"}
    assert "synthetic faults" in manifest["statement"]
    assert sum(manifest["files"][name]["rows"] for name in clients) == 244_102
    for name, facts in manifest["files"].items():
        table = pq.read_table(folder / name)
        assert table.num_rows == facts["rows"]
        assert facts["seconds"] == facts["rows"] / 50
        assert imu_watch.content_digest(table) == facts["content_sha256"]


def test_content_is_the_pinned_one(folder: Path) -> None:
    """A change here changes what every job trains on: it needs a new data set version."""
    assert json.loads((folder / "manifest.json").read_text())["content_sha256"] == CONTENT_SHA256


def test_clean_files_hold_the_signals_as_recorded(folder: Path) -> None:
    clean, faulted = (pq.read_table(folder / f"s02-right{which}.parquet") for which in ("-clean", ""))
    fault_free = faulted["label"].to_numpy() == 0
    assert not clean["label"].to_numpy().any()
    assert clean["series"].equals(faulted["series"])
    for name in imu_watch.SIGNALS:
        assert np.array_equal(clean[name].to_numpy()[fault_free], faulted[name].to_numpy()[fault_free])


def test_columns_types_and_balance(folder: Path) -> None:
    table = pq.read_table(folder / "s01-left.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types == dict.fromkeys(imu_watch.SIGNALS, "float") | {
        "label": "int8",
        "series": "int32",
        "activity": "int8",
    }
    assert len(set(table["series"].to_pylist())) == 7
    assert set(table["activity"].to_pylist()) == set(range(7))
    holdout = pq.read_table(folder / "holdout.parquet")
    assert set(holdout["client"].to_pylist()) == {"s09-left", "s09-right", "s10-left", "s10-right"}
    for labels in (table["label"].to_numpy(), holdout["label"].to_numpy()):
        assert 0.4 < labels.mean() < 0.6


@pytest.mark.parametrize("samples", [1, 100, 947, 2618])
def test_faults_depend_on_the_recordings_identity_only(samples: int) -> None:
    one, two = (imu_watch.inject_faults(recording(samples)) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


def test_other_recordings_get_other_faults() -> None:
    patterns = {
        imu_watch.inject_faults(recording(2000, series, subject, side))[1].tobytes()
        for series, subject, side in [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)]
    }
    assert len(patterns) == 4


def test_clean_samples_are_untouched_and_stretches_are_long() -> None:
    faulted = []
    for series in range(40):
        source = recording(1700, series)
        signals, labels = imu_watch.inject_faults(source)
        assert np.array_equal(signals[labels == 0], source.signals[labels == 0])
        assert min(stretches(labels)) >= 2.5 * imu_watch.RATE_HZ
        changed = (signals != source.signals).any(axis=1)
        # A stuck axis leaves the first sample of its stretch as it is.
        assert changed[labels == 1].mean() > 0.99
        faulted.append(labels.mean())
    assert 0.4 < np.mean(faulted) < 0.6


def test_a_fault_concerns_one_sensor() -> None:
    for series in range(40):
        source = recording(600, series)
        signals, labels = imu_watch.inject_faults(source)
        start = 0
        for length in stretches(labels):
            part = slice(start, start + length)
            axes = set(np.flatnonzero((signals[part] != source.signals[part]).any(axis=0)).tolist())
            assert len(axes) in ((1, 3) if labels[start] else (0,))
            assert axes <= {0, 1, 2} or axes <= {3, 4, 5}
            start += length


def wheel_with(signals: object) -> bytes:
    array, whole = io.BytesIO(), io.BytesIO()
    np.save(array, np.array(signals, dtype=object), allow_pickle=True)
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("seglearn/data/watch_dataset.npy", array.getvalue())
    return whole.getvalue()


class Bomb:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled_from_another_wheel(tmp_path: Path) -> None:
    with pytest.raises(imu_watch.WrongWheelError, match=r"sha256 is .* expected ec6b952c"):
        imu_watch.read_recordings(wheel_with(Bomb(tmp_path / "unpickled")))
    assert not (tmp_path / "unpickled").exists()
