"""What the steps read of differential privacy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptiveClipRecipe:
    """A clipping norm that follows the updates.

    Attributes:
        quantile: Share of the clients whose updates the norm shall not shorten.
        rate: How fast it follows, per round.
        count_noise: Standard deviation of the noise on the number of clients within the norm.
        update_noise: Noise multiplier of the update, so that both releases together cost ``noise_multiplier``.
    """

    quantile: float
    rate: float
    count_noise: float
    update_noise: float


@dataclass(frozen=True)
class PrivacyRecipe:
    """Differential privacy: the noise, and what it was accounted with.

    Attributes:
        unit: Whom it protects: "record" (a window of a client's data) or "client" (all that a client has).
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clip: L2 norm to which a gradient (record) or an update (client) is clipped; the first, where it adapts.
        adaptive: How that norm follows the updates; None for a fixed one.
        sampling: How units get into a noisy sum: "poisson", "without_replacement" or "all".
        rate: Probability of a unit to be in a sum.
        population: Clients that are drawn from, for sampling without replacement.
        drawn: Clients that are drawn.
        steps_per_round: Noisy sums in a round.
        delta: Of (epsilon, delta).
        epsilon: What all rounds together cost.
        ledger: Name of the ledger of the population and its data.
        budget_epsilon: What all jobs on them may spend together; None for no limit.
        budget_delta: Likewise.
    """

    unit: str
    noise_multiplier: float
    clip: float
    adaptive: AdaptiveClipRecipe | None
    sampling: str
    rate: float
    population: int
    drawn: int
    steps_per_round: int
    delta: float
    epsilon: float
    ledger: str
    budget_epsilon: float | None
    budget_delta: float | None
