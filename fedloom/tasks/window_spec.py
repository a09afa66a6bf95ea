"""How rows of client data become windows."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class WindowSpec:
    """How rows become windows.

    Attributes:
        signals: Columns to read, in the order of the channels.
        window_size: Samples in a window.
        stride: Samples from one window's start to the next.
        label_column: Column of class labels or true values, None when there are none.
        label_optional: Whether a file may lack the label column.
        labels: What stands in that column for class 0, 1, …; empty for these numbers themselves.
        numeric: Whether it holds numbers to predict instead of classes.
        mean: Nominal mean of each signal; empty for no standardisation.
        std: Nominal standard deviation of each signal; empty for no standardisation.
        group_columns: Further columns, whose values sort the windows into groups.
    """

    signals: tuple[str, ...]
    window_size: int
    stride: int
    label_column: str | None = None
    label_optional: bool = False
    labels: tuple[int | str, ...] = ()
    numeric: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    group_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.signals or len(set(self.signals)) != len(self.signals):
            raise ValueError("signals must be given, each once")
        if self.window_size < 1 or self.stride < 1:
            raise ValueError("window_size and stride must be at least 1")
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, len(self.signals)):
            raise ValueError("mean and std must both be empty or have one value a signal")
        if not all(map(isfinite, self.mean)) or not all(0 < std < float("inf") for std in self.std):
            raise ValueError("mean must be finite, std finite and above zero")
