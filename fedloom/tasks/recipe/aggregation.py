"""What the steps read of the way from updates to a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RobustRecipe:
    """A rule that withstands hostile updates (see `fedloom.tasks.aggregation.robust`).

    Attributes:
        method: "median", "trimmed_mean", "krum", "multi_krum" or "bulyan".
        hostile: Updates that may be hostile, f of the papers; None for as many as the number of updates allows.
        closest: Krum: at most so many nearest updates count; None for n - f - 2.
        trim_ratio: Trimmed mean: share cut off at each end.
    """

    method: str
    hostile: int | None
    closest: int | None
    trim_ratio: float


@dataclass(frozen=True)
class CheckRecipe:
    """One check of single updates (see `fedloom.tasks.aggregation.quality`).

    Attributes:
        name: Which check.
        metric: parameter_distance: "l2", "l1", "linf" or "cosine".
        limit: Value beyond which the action is taken.
        action: "exclude", "clip" or "flag".
    """

    name: str
    metric: str
    limit: float
    action: str


@dataclass(frozen=True)
class StalenessRecipe:
    """What happens to an update that was made for an earlier round.

    Attributes:
        rounds: Rounds by which it may be late.
        action: "exclude" or "flag".
    """

    rounds: int
    action: str


@dataclass(frozen=True)
class ServerOptimizerRecipe:
    """What the server makes of the mean update (see `fedloom.tasks.aggregation.server`).

    Attributes:
        name: "SGD", "AdaGrad", "Adam" or "Yogi".
        learning_rate: The server's step size.
        beta1: Momentum.
        beta2: Adam, Yogi: decay of the second moment.
        tau: All but SGD: how little the rule adapts.
    """

    name: str
    learning_rate: float
    beta1: float
    beta2: float
    tau: float


@dataclass(frozen=True)
class AggregationRecipe:
    """How updates become the next model.

    Attributes:
        weights: "num_samples", "uniform", "custom", "loss_based" or "contribution".
        quorum: Updates below which the model stays as it is.
        weight_column: The column of the roster that holds custom weights.
        normalize: Divide by the sum of the weights; otherwise the weights are shares already.
        share_min: Smallest share of a client in the mean.
        share_max: Largest share of a client in the mean.
        robust: A rule that takes the place of the weighted mean.
        checks: What an update must pass before it counts, in this order.
        staleness: What happens to late updates.
        server: What the server makes of the mean update; None for adding it.
    """

    weights: str
    quorum: int
    weight_column: str | None = None
    normalize: bool = True
    share_min: float = 0.0
    share_max: float = 1.0
    robust: RobustRecipe | None = None
    checks: tuple[CheckRecipe, ...] = ()
    staleness: StalenessRecipe | None = None
    server: ServerOptimizerRecipe | None = None

    @property
    def single_updates(self) -> bool:
        """Whether the server must see every client's update, and not a shard's sum."""
        compared = self.weights in ("loss_based", "contribution") or self.share_min > 0 or self.share_max < 1
        return compared or self.robust is not None or bool(self.checks)


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
