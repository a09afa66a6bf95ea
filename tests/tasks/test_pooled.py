"""Pooled metrics are those of all windows together, however these are spread over clients."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.tasks.measure import confusion
from fedloom.tasks.metrics import compute
from fedloom.tasks.pooled import pooled_metrics

RATES = ("accuracy", "error_rate", "precision", "recall", "f1_score", "false_positive_rate", "false_negative_rate")
NAMES = {
    "binary_classification": (*RATES, "brier_score", "ece", "auc", "average_precision"),
    "multi_class": (*RATES, "brier_score", "ece", "auc"),
    "regression": ("mae", "rmse", "r2"),
}
NEVER = {"ece", "auc", "average_precision", "r2"}
"""What does not add up."""


def figures(output: str, y: Any, scores: Any) -> dict[str, Any]:
    found = compute(NAMES[output], output, y, scores, 0.5, 0.0)
    matrix = None
    if output != "regression":
        said = scores.argmax(axis=1) if scores.ndim > 1 else (scores >= 0.5).astype(np.int64)
        matrix = confusion(y, said, scores.shape[1] if scores.ndim > 1 else 2).tolist()
    return {"windows": len(y), "metrics": found.values, "undefined": found.undefined, "confusion": matrix}


@pytest.mark.parametrize("output", NAMES)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_pool_is_the_whole(output: str, seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    count, classes = sum(sizes), 3
    y: Any = rng.integers(0, classes if output == "multi_class" else 2, count)
    scores: Any = rng.random(count)
    if output == "multi_class":
        scores = rng.dirichlet(np.ones(classes), count)
    if output == "regression":
        y = rng.normal(size=count).astype(np.float32)
    whole = compute(NAMES[output], output, y, scores, 0.5, 0.0)
    at = np.cumsum(sizes)[:-1]
    parts = [figures(output, *part) for part in zip(np.split(y, at), np.split(scores, at), strict=True)]
    pooled = pooled_metrics(parts, NAMES[output], output)
    assert pooled["metrics"].keys() == whole.values.keys() - NEVER - {"loss"}
    for name, value in pooled["metrics"].items():
        assert value == pytest.approx(whole.values[name], abs=1e-9), name


def test_nothing_gives_nothing() -> None:
    assert pooled_metrics([], RATES, "binary_classification") == {"metrics": {}, "undefined": {}, "confusion": None}
