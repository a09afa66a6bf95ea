"""The imu-watch data set: real IMU signals with synthetic, labelled sensor faults.

The signals are the smartwatch recordings that the seglearn package ships (accelerometer and
gyroscope at 50 Hz, ten subjects, both arms, seven shoulder exercises each). The recordings hold
no sensor faults, so drift faults are injected, and every sample says whether it carries one.

The conversion uses only correctly rounded element-wise arithmetic and raw generator output, so
that the content is the same on every machine and numpy version.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "imu-watch"
VERSION = "1.0.0"
REQUIREMENT = "seglearn==1.2.5"
WHEEL = "seglearn-1.2.5-py3-none-any.whl"
WHEEL_SHA256 = "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd"
STATEMENT = "Real signals, synthetic faults: recorded IMU data, drift faults injected and labelled."

SIGNALS = ("accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z")
RATE_HZ = 50
HOLDOUT_SUBJECTS = (9, 10)

Signals = NDArray[np.float64]
Labels = NDArray[np.int8]

# Typical spread of each axis over the fleet. Fault sizes are multiples of it: a sensor drifts
# by its own scale, whatever its wearer does.
_SPREAD = (0.9, 0.5, 0.55, 1.0, 2.5, 1.05)
_STRETCH_SECONDS = (5.0, 10.0)
_RAMP_SECONDS = (0.5, 2.0)
_BIAS = (0.8, 2.4)
_SCALE = (0.8, 1.8)
_KINDS = ("bias", "bias", "bias", "scale", "scale", "stuck")


@dataclass(frozen=True)
class Recording:
    """One exercise set of one subject's arm, as it was recorded.

    Attributes:
        series: Position in the source, from 0.
        subject: 1 to 10.
        side: 0 for the left arm, 1 for the right.
        activity: 0 to 6, an index into the source's exercise names.
        signals: [samples, 6] in the order of SIGNALS.
    """

    series: int
    subject: int
    side: int
    activity: int
    signals: Signals

    @property
    def client(self) -> str:
        return f"s{self.subject:02d}-{'right' if self.side else 'left'}"


class WrongWheelError(ValueError):
    """Bytes that are not the pinned wheel."""


def check_wheel(wheel: bytes) -> None:
    """Raise WrongWheelError unless these bytes are the pinned wheel."""
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != WHEEL_SHA256:
        raise WrongWheelError(f"sha256 is {digest}, expected {WHEEL_SHA256}")


def read_recordings(wheel: bytes) -> tuple[list[Recording], str]:
    """Read the recordings, and the licence text that covers them, out of the wheel's bytes."""
    check_wheel(wheel)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        raw = archive.read("seglearn/data/watch_dataset.npy")
        licence = archive.read("seglearn-1.2.5.dist-info/LICENSE").decode()
    # The source is a pickled dict. Unpickling runs whatever the file says, so it is allowed here
    # only: the bytes have just been found to be exactly the release that was reviewed.
    source: dict[str, Any] = np.load(io.BytesIO(raw), allow_pickle=True).item()
    columns = zip(source["subject"], source["side"], source["y"], source["X"], strict=True)
    return [
        Recording(series, int(subject), int(side), int(activity), np.asarray(signals, dtype=np.float64))
        for series, (subject, side, activity, signals) in enumerate(columns)
    ], licence


def inject_faults(recording: Recording) -> tuple[Signals, Labels]:
    """Return the recording's signals with faults in about half of its time, and labels (1: faulted).

    Clean and faulted stretches of several seconds take turns. Which state comes first, each
    stretch's length, and each fault's kind, axis and size follow from the recording's identity.
    """
    identity = [*map(int, VERSION.split(".")), recording.subject, recording.side, recording.series]
    uniform = _uniform(np.random.PCG64(np.random.SeedSequence(identity)))
    signals, labels = recording.signals.copy(), _clean(recording)
    faulted = uniform(0, 1) < 0.5
    start = 0
    while start < len(signals):
        stop = start + round(uniform(*_STRETCH_SECONDS) * RATE_HZ)
        if len(signals) - stop < _STRETCH_SECONDS[0] * RATE_HZ / 2:
            stop = len(signals)  # no tail too short to be judged
        if faulted:
            _inject(signals[start:stop], uniform)
            labels[start:stop] = 1
        start, faulted = stop, not faulted
    return signals, labels


def _uniform(bits: np.random.PCG64) -> Callable[[float, float], float]:
    # Raw output only: numpy keeps it stable for ever, the distributions of Generator it does not.
    def draw(low: float, high: float) -> float:
        return low + (high - low) * ((int(bits.random_raw()) >> 11) * 2.0**-53)

    return draw


def _inject(stretch: Signals, uniform: Callable[[float, float], float]) -> None:
    """Put one fault into a stretch of signals, in place."""
    kind = _KINDS[int(uniform(0, len(_KINDS)))]
    axis = int(uniform(0, len(SIGNALS)))
    upward = uniform(0, 1) < 0.5
    ramp = np.minimum(np.arange(1, len(stretch) + 1) / (uniform(*_RAMP_SECONDS) * RATE_HZ), 1.0)
    if kind == "bias":
        size = uniform(*_BIAS) * _SPREAD[axis]
        stretch[:, axis] += (size if upward else -size) * ramp
    elif kind == "scale":
        size = uniform(*_SCALE)
        factor = 1.0 + size * ramp if upward else 1.0 / (1.0 + size * ramp)
        sensor = slice(0, 3) if axis < 3 else slice(3, 6)
        stretch[:, sensor] *= factor[:, None]
    else:
        stretch[:, axis] = stretch[0, axis]


def convert(wheel: bytes, folder: Path) -> None:
    """Write the data set into an existing, empty folder; the manifest comes last.

    Args:
        wheel: The bytes of the pinned wheel.
        folder: Receives two Parquet files a client (with faults, and as recorded), holdout.parquet,
            the source's licence and manifest.json.
    """
    import pyarrow.parquet as pq

    recordings, licence = read_recordings(wheel)
    (folder / "LICENSE-seglearn.txt").write_text(licence, encoding="utf-8")
    files: dict[str, dict[str, Any]] = {}
    for name, table in _tables(recordings):
        path = folder / name
        pq.write_table(table, path, compression="zstd")
        files[name] = {
            "rows": table.num_rows,
            "seconds": table.num_rows / RATE_HZ,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "content_sha256": content_digest(table),
        }
    (folder / "manifest.json").write_text(json.dumps(_manifest(files), indent=2) + "\n", encoding="utf-8")


def content_digest(table: pa.Table) -> str:
    """SHA-256 over names, types and values: the same for any Parquet encoding of the same data."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        digest.update(f"{name}:{column.type}:{len(column)}\n".encode())
        if str(column.type) == "string":
            digest.update("\n".join(column.to_pylist()).encode())
        else:
            values = column.to_numpy()
            digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _tables(recordings: list[Recording]) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow as pa

    by_client: dict[str, list[Recording]] = {}
    for recording in sorted(recordings, key=lambda one: (one.client, one.series)):
        by_client.setdefault(recording.client, []).append(recording)
    holdout = []
    for client, members in by_client.items():
        clean = [_table(recording, recording.signals, _clean(recording)) for recording in members]
        yield f"{client}-clean.parquet", pa.concat_tables(clean).combine_chunks()
        faulted = [_table(recording, *inject_faults(recording)) for recording in members]
        table = pa.concat_tables(faulted).combine_chunks()
        yield f"{client}.parquet", table
        if members[0].subject in HOLDOUT_SUBJECTS:
            holdout.append(table.append_column("client", pa.array([client] * table.num_rows, pa.string())))
    yield "holdout.parquet", pa.concat_tables(holdout).combine_chunks()


def _clean(recording: Recording) -> Labels:
    return np.zeros(len(recording.signals), dtype=np.int8)


def _table(recording: Recording, signals: Signals, labels: Labels) -> pa.Table:
    import pyarrow as pa

    rows = len(labels)
    columns: dict[str, NDArray[Any]] = {name: signals[:, axis].astype(np.float32) for axis, name in enumerate(SIGNALS)}
    columns["label"] = labels
    columns["series"] = np.full(rows, recording.series, dtype=np.int32)
    columns["activity"] = np.full(rows, recording.activity, dtype=np.int8)
    return pa.table(columns)


def _manifest(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    contents = "\n".join(f"{name} {files[name]['content_sha256']}" for name in sorted(files))
    return {
        "name": NAME,
        "version": VERSION,
        "statement": STATEMENT,
        "source": {
            "requirement": REQUIREMENT,
            "wheel": WHEEL,
            "sha256": WHEEL_SHA256,
            "study": "https://arxiv.org/abs/1802.01489",
            "licence": "BSD-3-Clause, see LICENSE-seglearn.txt",
        },
        "rate_hz": RATE_HZ,
        "signals": list(SIGNALS),
        "faults": {
            "bias": {"size_in_spreads": _BIAS, "spread": dict(zip(SIGNALS, _SPREAD, strict=True))},
            "scale": {"factor_beyond_1": _SCALE},
            "stuck": {"value": "the first of the stretch"},
            "share_of_kinds": {kind: _KINDS.count(kind) / len(_KINDS) for kind in sorted(set(_KINDS))},
            "stretch_seconds": _STRETCH_SECONDS,
            "ramp_seconds": _RAMP_SECONDS,
        },
        "holdout_subjects": list(HOLDOUT_SUBJECTS),
        "content_sha256": hashlib.sha256(contents.encode()).hexdigest(),
        "files": files,
    }
