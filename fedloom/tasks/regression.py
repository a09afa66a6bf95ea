"""Metrics of regression: how far predicted numbers are from the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES = frozenset({"mae", "rmse", "r2"})


def errors(y: NDArray[np.float32], predicted: NDArray[np.float64]) -> dict[str, float]:
    """Mean absolute error, root mean squared error, and r2, the share of the variance that is explained.

    Args:
        y: True numbers, shape [N], N at least 1.
        predicted: Predicted numbers, shape [N].

    Returns:
        Values by name; without r2 where all true numbers are equal, so that there is no variance to explain.
    """
    import numpy as np

    truth = y.astype(np.float64)
    off = predicted - truth
    squared = float(np.mean(off**2))
    found = {"mae": float(np.mean(np.abs(off))), "rmse": squared**0.5}
    spread = float(np.var(truth))
    return found | {"r2": 1.0 - squared / spread} if spread > 0 else found
