"""The recipe: what the steps of a run read, and nothing that does not change its outcome.

The compiler makes it from the specs; the plan's digest covers it. Everything here is a JSON value.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedloom.specs.criteria import Criterion
from fedloom.tasks.window_spec import WindowSpec

Scalar = str | int | float | bool
Setting = Scalar | None | tuple[Scalar, ...]


@dataclass(frozen=True)
class ModelRecipe:
    """A network.

    Attributes:
        architecture: Name in the specs, e.g. "MLP".
        custom_class: ``package.module:Class`` of a Custom architecture.
        hyperparameters: Its settings, in the order of their names.
        window_size: Samples in an input window.
        channels: Signals in an input window.
        output: "binary_classification", "multi_class" or "reconstruction_error".
        classes: Number of classes (2 for binary, 0 where there are none).
    """

    architecture: str
    custom_class: str | None
    hyperparameters: tuple[tuple[str, Setting], ...]
    window_size: int
    channels: int
    output: str
    classes: int

    @property
    def settings(self) -> dict[str, Setting]:
        """The hyperparameters by name."""
        return dict(self.hyperparameters)


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


@dataclass(frozen=True)
class TrainingRecipe:
    """What a client does with the model.

    Attributes:
        algorithm: "FedAvg" or "FedProx".
        optimizer: Name in the specs.
        optimizer_settings: Its settings besides the learning rate.
        learning_rate: Step size.
        proximal: FedProx's mu; 0 for FedAvg.
        loss: Name of the loss function.
        class_weights: One weight a class, or empty.
        local_epochs: Passes over the client's data in a round.
        batch_size: Windows in a batch.
        shuffle: Draw a new order of the windows in every epoch.
        client_timeout_s: Seconds after which a client counts as late.
    """

    algorithm: str
    optimizer: str
    optimizer_settings: tuple[tuple[str, float | bool], ...]
    learning_rate: float
    proximal: float
    loss: str
    class_weights: tuple[float, ...]
    local_epochs: int
    batch_size: int
    shuffle: bool
    client_timeout_s: float


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

    threshold: int | None
    corrupt: float
    dropout: float
    survivors: int
    clip: float
    weight_max: float
    bits: int
    ring_bits: int
    parameters: int


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


@dataclass(frozen=True)
class Bound:
    """A limit on a metric: at least ``minimum`` and at most ``maximum``; named by where it stands in the spec."""

    name: str
    metric: str
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class EvaluationRecipe:
    """How a model is judged.

    Attributes:
        holdout: Location of the held-out data; None when the job names none.
        holdout_size: Windows drawn from it; None for all.
        stratified: Draw them in the proportion of the labels.
        metrics: Names, in the order of the spec.
        bounds: Targets and thresholds of the gate.
        threshold: Score from which a window counts as positive.
        stop_metric: Metric that early stopping watches; None when it is off.
        stop_value: Value of that metric at which training has reached its goal.
        patience: Rounds without improvement after which training stops.
    """

    holdout: str | None
    holdout_size: int | None
    stratified: bool
    metrics: tuple[str, ...]
    bounds: tuple[Bound, ...]
    threshold: float
    stop_metric: str | None
    stop_value: float | None
    patience: int | None


@dataclass(frozen=True)
class Recipe:
    """Everything that steps of one job read.

    Attributes:
        job_id: The job.
        model_version: Version of the model that the job makes.
        seed: Where all randomness comes from.
        rounds: Rounds at most.
        fleet_digest: SHA-256 of the roster.
        threads: Threads of a step; fixed, because sums depend on how they are split.
        masking: Secure aggregation; None for updates that the server may see.
        privacy: Differential privacy; None for none.
    """

    job_id: str
    model_version: str
    seed: int
    rounds: int
    fleet_digest: str
    threads: int
    model: ModelRecipe
    inputs: WindowSpec
    selection: SelectionRecipe
    training: TrainingRecipe
    aggregation: AggregationRecipe
    masking: MaskingRecipe | None
    privacy: PrivacyRecipe | None
    evaluation: EvaluationRecipe
