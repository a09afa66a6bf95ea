"""Faults of sensors, put into held-out windows: what does a model make of them?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedloom.tasks.seeds import seed_sequence
from fedloom.tasks.window_spec import WindowSpec

Floats = NDArray[np.float32]
Fault = Callable[[Floats, Floats, Floats, np.random.Generator], Floats]


def faulty(x: Floats, fault: str, severity: float, spec: WindowSpec, seed: int) -> Floats:
    """Windows with a fault.

    Args:
        x: Windows, float32 [windows, window_size, channels], standardised as in ``spec``.
        fault: A key of `FAULTS`.
        severity: Size of noise and bias, in standard deviations of each channel over ``x``.
        spec: How the windows were made.
        seed: The job's; the same seed gives the same faults.

    Returns:
        New windows of the same shape.
    """
    rng = np.random.default_rng(seed_sequence(seed, "robustness", fault))
    size = np.asarray(severity * x.reshape(-1, x.shape[2]).std(axis=0, dtype=np.float64), dtype=np.float32)
    means = zip(spec.mean, spec.std, strict=True)
    zero = np.array([-mean / std for mean, std in means] or [0.0] * x.shape[2], dtype=np.float32)
    return FAULTS[fault](x, size, zero, rng)


def _noise(x: Floats, size: Floats, _zero: Floats, rng: np.random.Generator) -> Floats:
    return x + rng.standard_normal(x.shape, dtype=np.float32) * size


def _bias(x: Floats, size: Floats, _zero: Floats, rng: np.random.Generator) -> Floats:
    signs = rng.integers(2, size=(len(x), 1, x.shape[2])).astype(np.float32) * 2 - 1
    return x + signs * size


def _dropped_axis(x: Floats, _size: Floats, zero: Floats, rng: np.random.Generator) -> Floats:
    return np.where(_one_axis(x, rng), zero, x)


def _stuck_axis(x: Floats, _size: Floats, _zero: Floats, rng: np.random.Generator) -> Floats:
    return np.where(_one_axis(x, rng), x[:, :1], x)


def _one_axis(x: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """One axis a window, [windows, 1, channels]."""
    chosen = rng.integers(x.shape[2], size=(len(x), 1, 1))
    return np.equal(chosen, np.arange(x.shape[2]))


FAULTS: Mapping[str, Fault] = {
    "noise": _noise,
    "bias": _bias,
    "dropped_axis": _dropped_axis,
    "stuck_axis": _stuck_axis,
}
"""Gaussian noise; an offset of random sign on each axis; an axis, drawn for each window, that reads zero in the data's
own units; one that keeps its first value."""
