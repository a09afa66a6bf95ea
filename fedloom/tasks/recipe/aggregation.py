"""What the steps read of the way from updates to a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AggregationRecipe:
    """How updates become the next model.

    Attributes:
        weights: "num_samples" or "uniform".
        quorum: Updates below which the model stays as it is.
    """

    weights: str
    quorum: int


@dataclass(frozen=True)
class MaskingRecipe:
    """How updates are added without being seen (see `fedloom.tasks.secure_aggregation`).

    Attributes:
        protocol: "pairwise" (one server, masks that cancel) or "two_server" (a half to each of two servers).
        threshold: Shares that open a secret, where the job says; None for the search's choice.
        corrupt: Share of a cohort that may work with the server.
        dropout: Share of a cohort that may vanish after it has shared its secrets.
        survivors: Fewest clients whose sum may be opened.
        clip: Largest absolute value of a weighted update's coordinate.
        weight_max: The largest weight of a client.
        bits: Bits of a quantised coordinate.
        ring_bits: 32 or 64.
        parameters: Coordinates of an update.
    """

    protocol: str
    threshold: int | None
    corrupt: float
    dropout: float
    survivors: int
    clip: float
    weight_max: float
    bits: int
    ring_bits: int
    parameters: int
