"""What the steps read of training at a client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScheduleRecipe:
    """How the learning rate changes over the rounds.

    Attributes:
        type: "step", "exponential", "cosine" or "warmup_cosine".
        gamma: What a step, or every round, multiplies the rate by.
        step_size: Rounds from one step to the next.
        floor: Where the cosine ends, as a share of the first rate.
        warmup_rounds: Rounds in which the rate climbs.
    """

    type: str
    gamma: float
    step_size: int
    floor: float
    warmup_rounds: int


@dataclass(frozen=True)
class TrainingRecipe:
    """What a client does with the model.

    Attributes:
        algorithm: Name in the specs; at a client all but FedProx and SCAFFOLD are FedAvg.
        optimizer: Name in the specs.
        optimizer_settings: Its settings besides the learning rate.
        learning_rate: Step size; in an order, that of its round.
        proximal: FedProx's mu; 0 for FedAvg.
        loss: Name of the loss function.
        class_weights: One weight a class, or empty.
        local_epochs: Passes over the client's data in a round.
        batch_size: Windows in a batch.
        shuffle: Draw a new order of the windows in every epoch.
        loss_before: Measure the loss of the received model too, for checks of updates.
        shard_deadline_s: Seconds after which the clients of a shard that have not finished are late; None for none.
        client_timeout_s: Seconds after which a client counts as late.
        schedule: How the learning rate changes over the rounds; None for a constant one, and in an order.
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
    loss_before: bool
    shard_deadline_s: float | None
    client_timeout_s: float
    schedule: ScheduleRecipe | None = None
