"""What the steps read of a model's measurement at the clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeasuringRecipe:
    """How the clients' values become values of the fleet.

    Attributes:
        combine: Each metric and how its values are combined: "weighted_average" (by the job's weights of clients),
            "average", "min", "max" or "median".
        columns: Fleet columns by whose values the metrics are broken down.
    """

    combine: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
