"""How far held-out data have moved from a reference: PSI and KS of each signal, and the file of the reference.

The reference holds bins and quantiles of each signal in the data's own units: a few of its values, and no recording.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedloom.specs.canonical import canonical_json, sha256
from fedloom.tasks.client_data import ClientDataError, Windows, open_location
from fedloom.tasks.errors import ConfigurationError
from fedloom.tasks.window_spec import WindowSpec

FORMAT = "fedloom-baseline-1"
BINS = 10
QUANTILES = 200
_FLOOR = 1e-4
"""Least share of a bin, so that an empty one does not make PSI infinite."""
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Reference:
    """One signal as it was.

    Attributes:
        edges: Ascending inner edges of the bins; the outer bins are open.
        shares: Share of the samples in each bin: one more than edges.
        quantiles: Ascending values of the signal at equally spaced ranks.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Baseline:
    """The references by signal, and the SHA-256 of their file."""

    signals: Mapping[str, Reference]
    sha256: str


def samples_of(windows: Windows, spec: WindowSpec) -> dict[str, NDArray[np.float64]]:
    """The values of each signal in the data's own units; a sample in several windows counts once."""
    fresh = windows.x[:, : min(spec.stride, spec.window_size)].astype(np.float64)
    values = {name: fresh[:, :, channel].ravel() for channel, name in enumerate(spec.signals)}
    if not spec.mean:
        return values
    scales = zip(spec.signals, spec.mean, spec.std, strict=True)
    return {name: _unscaled(values[name], mean, std) for name, mean, std in scales}


def _unscaled(values: NDArray[np.float64], mean: float, std: float) -> NDArray[np.float64]:
    """Standardising in float32 moves a value by a rounding: what was equal, as a sensor's zero, is made equal again."""
    return np.round(values * std + mean, 5 - math.floor(math.log10(std)))


def reference(values: NDArray[np.float64]) -> Reference:
    """Ten bins of equal shares where the values allow it; a value that fills whole bins gets one of its own."""
    cuts = np.quantile(values, np.arange(1, BINS) / BINS)
    edges, repeated = np.unique(cuts, return_counts=True)
    # Another contract's rounding must not carry a value over the edge of its own bin.
    room = 1e-5 * np.maximum(np.abs(edges), values.std()) + 1e-12
    atoms = (repeated > 1) | (len(edges) == 1)
    edges = np.unique(np.concatenate([edges[~atoms], (edges - room)[atoms], (edges + room)[atoms]]))
    ranks = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return Reference(
        edges=tuple(edges.tolist()),
        shares=tuple(_shares(values, edges).tolist()),
        quantiles=tuple(np.quantile(values, ranks, method="inverted_cdf").tolist()),
    )


def psi(then: Reference, values: NDArray[np.float64]) -> float:
    """Population stability index: sum over the bins of (now − then) · ln(now / then)."""
    before = np.maximum(np.asarray(then.shares), _FLOOR)
    now = np.maximum(_shares(values, np.asarray(then.edges)), _FLOOR)
    return float(((now - before) * np.log(now / before)).sum())


def ks(then: Reference, values: NDArray[np.float64]) -> float:
    """Kolmogorov–Smirnov distance: the largest gap between the two distribution functions, 0 to 1.

    The reference is known at `QUANTILES` ranks, so the distance is right to 1 / (2 · QUANTILES).
    """
    from scipy.stats import ks_2samp

    return float(ks_2samp(np.asarray(then.quantiles), values, method="asymp").statistic)


def measure_drift(baseline: Baseline, windows: Windows, spec: WindowSpec) -> dict[str, dict[str, float]]:
    """PSI and KS of each signal that a model reads.

    Raises:
        ConfigurationError: when the baseline lacks a signal.
    """
    lacking = [name for name in spec.signals if name not in baseline.signals]
    if lacking:
        raise ConfigurationError(
            f"the baseline distribution has no signal {', '.join(map(repr, lacking))}; it has "
            f"{', '.join(sorted(baseline.signals))}. Make one of this job's signals: fedloom data baseline"
        )
    return {
        name: {"psi": psi(baseline.signals[name], values), "ks": ks(baseline.signals[name], values)}
        for name, values in samples_of(windows, spec).items()
    }


def baseline_file(windows: Sequence[Windows], spec: WindowSpec, sources: Sequence[str]) -> bytes:
    """A baseline of these windows, one of each source, together: the bytes of its file."""
    parts = [samples_of(one, spec) for one in windows]
    pooled = {name: np.concatenate([part[name] for part in parts]) for name in spec.signals}
    signals = {name: reference(values) for name, values in pooled.items()}
    samples = len(pooled[spec.signals[0]])
    return canonical_json({"format": FORMAT, "sources": list(sources), "samples": samples, "signals": signals})


def read_baseline(location: str, root: Path) -> Baseline:
    """Read the file that `baseline_file` made.

    Args:
        location: A path inside root, ``dataset:NAME/FILE`` or an fsspec URL.
        root: The job's folder.

    Raises:
        ConfigurationError: when it cannot be read or is damaged.
    """
    try:
        with open_location(location, root) as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MiB")
        return Baseline(_signals(json.loads(data)), sha256(data))
    except (ClientDataError, ValueError, OSError) as error:
        message = f"the baseline distribution '{location}' cannot be used: {error}"
        raise ConfigurationError(f"{message}; make one with: fedloom data baseline") from error


def _signals(data: Any) -> dict[str, Reference]:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"it has not the format {FORMAT}")
    signals = data.get("signals")
    if not isinstance(signals, dict) or not signals:
        raise ValueError("it has no signals")
    return {name: _reference(name, one) for name, one in signals.items()}


def _reference(name: str, data: Any) -> Reference:
    try:
        edges, shares, quantiles = (np.array(data[key], dtype=np.float64) for key in ("edges", "shares", "quantiles"))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"signal '{name}' needs lists of numbers: edges, shares and quantiles") from error
    if any(part.ndim != 1 or not np.isfinite(part).all() for part in (edges, shares, quantiles)):
        raise ValueError(f"signal '{name}' has values that are no finite numbers")
    if len(edges) < 1 or len(shares) != len(edges) + 1 or (np.diff(edges) <= 0).any():
        raise ValueError(f"signal '{name}' needs ascending edges, and one more share than edges")
    if (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"signal '{name}' has shares that do not sum to 1")
    if len(quantiles) < BINS or (np.diff(quantiles) < 0).any():
        raise ValueError(f"signal '{name}' needs at least {BINS} ascending quantiles")
    return Reference(tuple(edges.tolist()), tuple(shares.tolist()), tuple(quantiles.tolist()))


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return np.asarray(counts / len(values))
