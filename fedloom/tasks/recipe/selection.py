"""What the steps read of the choice of clients."""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.specs.criteria import Criterion


@dataclass(frozen=True)
class SelectionRecipe:
    """Who may take part, how many, and how they are drawn.

    Attributes:
        algorithm: "random", "importance_sampling" or "poisson" (each client on its own, with the same probability).
        target: Clients wanted in a cohort.
        minimum: Clients below which a round cannot start.
        criteria: What an eligible client meets.
        blocked: Ids that never take part, each with the reason ("" where none is given).
        grey: Ids drawn with a lower probability.
        grey_factor: By how much lower (0 to 1).
        weight_column: The column that importance sampling draws in proportion to.
        alert_below: Number of eligible clients below which the step reports low eligibility.
        shard_size: Clients in a shard.
    """

    algorithm: str
    target: int
    minimum: int
    criteria: tuple[Criterion, ...]
    blocked: tuple[tuple[str, str], ...]
    grey: tuple[str, ...]
    grey_factor: float
    weight_column: str | None
    alert_below: int
    shard_size: int
