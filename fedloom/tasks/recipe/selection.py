"""What the steps read of the choice of clients."""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.specs.criteria import Criterion

HISTORY_SCORES = frozenset({"contribution", "loss_gradient", "loss_reduction"})
"""Components of a score that are computed from what clients gave in earlier rounds."""


def word_of(value: object) -> str:
    """A value of a column as it stands for itself among the keys of sampling_weights."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class ColumnWeight:
    """A column's part in the weights of weighted_random.

    Attributes:
        column: The column of the fleet.
        factor: What its number, over the largest one, is multiplied by; None for a column of values.
        values: The weight of each value; of a column of numbers, none.
    """

    column: str
    factor: float | None
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class FairnessRecipe:
    """How participation is spread over clients.

    Attributes:
        period: "week", "month", "quarter" or "year"; None where nothing is counted by period.
        at_least: Times that a client should take part in a period; those that have not are drawn first.
        at_most: Times that a client may take part in a period; None for no limit.
        tail_rate: Share of the places for clients that took part less often than most.
        parity: Columns whose groups shall be represented equally.
        tolerance: How far a group's share of the cohort may lie from equal.
    """

    period: str | None
    at_least: int
    at_most: int | None
    tail_rate: float
    parity: tuple[str, ...]
    tolerance: float


@dataclass(frozen=True)
class AutoBlockRecipe:
    """What puts a client on the blacklist.

    Attributes:
        failures: So many rounds in a row without an update; None for no limit.
        poisoning: A check of its data found poisoning.
        byzantine: A check of its update found it unlike what honest clients send.
    """

    failures: int | None
    poisoning: bool
    byzantine: bool


@dataclass(frozen=True)
class SelectionRecipe:
    """Who may take part, how many, and how they are drawn.

    Attributes:
        algorithm: "random", "weighted_random", "importance_sampling", "active_learning" or "poisson" (each client on
            its own, with the same probability).
        target: Clients wanted in a cohort.
        minimum: Clients below which a round cannot start.
        criteria: What an eligible client meets.
        where: An expression in CEL that it meets too.
        blocked: Ids that never take part, each with the reason ("" where none is given).
        auto_block: What shuts clients out by itself.
        grey: Ids drawn with a lower probability.
        grey_factor: By how much lower (0 to 1).
        score: Components of the score that clients are drawn by, each with its weight; empty for equal chances.
        rarity: Columns whose rare values make a client's data diverse, where the fleet has no data_diversity.
        sampling_weights: The weights of weighted_random.
        stratify_by: Columns over whose values the places are spread.
        exploration: Share of the places that are drawn with equal chances (0 to 1).
        fairness: How participation is spread over clients; None for not at all.
        on_shortfall: "fail", "skip_round" or "wait".
        max_wait: Minutes waited at most.
        keep_history: The rounds go into the job's participation history.
        alert_below: Number of eligible clients below which the step reports low eligibility.
        shard_size: Clients in a shard.
    """

    algorithm: str
    target: int
    minimum: int
    criteria: tuple[Criterion, ...]
    where: str | None
    blocked: tuple[tuple[str, str], ...]
    auto_block: AutoBlockRecipe | None
    grey: tuple[str, ...]
    grey_factor: float
    score: tuple[tuple[str, float], ...]
    rarity: tuple[str, ...]
    sampling_weights: tuple[ColumnWeight, ...]
    stratify_by: tuple[str, ...]
    exploration: float
    fairness: FairnessRecipe | None
    on_shortfall: str
    max_wait: int
    keep_history: bool
    alert_below: int
    shard_size: int

    @property
    def reads_history(self) -> bool:
        """Whether a decision depends on earlier rounds."""
        counted = self.fairness is not None and (self.fairness.period is not None or self.fairness.tail_rate > 0)
        scored = any(name in HISTORY_SCORES for name, _ in self.score)
        return counted or scored or self.auto_block is not None

    @property
    def uniform(self) -> bool:
        """Whether each eligible client has the same chance in every round, whatever has happened before."""
        equal = self.algorithm in ("random", "poisson") and (not self.grey or self.grey_factor == 1)
        return equal and not self.stratify_by and self.fairness is None and self.auto_block is None
