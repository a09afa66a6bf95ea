"""How a job trains, locally and over rounds."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedloom.specs.base import Section
from fedloom.specs.fields import Count, Flag, Name, Natural, NotNegative, Number, Positive, Rate

Algorithm = Literal["FedAvg", "FedProx", "FedOpt", "FedYogi", "FedAdam", "SCAFFOLD"]
Optimizer = Literal["Adam", "SGD", "AdaGrad", "RMSprop"]
Beta = Annotated[Number, Field(ge=0, lt=1)]


class OptimizerKwargs(Section):
    """Further settings of the optimizer, by PyTorch's names."""

    beta1: Beta | None = Field(None, description="Adam: decay of the first moment.")
    beta2: Beta | None = Field(None, description="Adam: decay of the second moment.")
    eps: Positive | None = Field(None, description="Adam, AdaGrad, RMSprop: added to the denominator.")
    weight_decay: NotNegative | None = Field(None, description="L2 penalty.")
    amsgrad: Flag | None = Field(None, description="Adam: use the AMSGrad variant.")
    momentum: Rate | None = Field(None, description="SGD, RMSprop: momentum.")
    dampening: Rate | None = Field(None, description="SGD: dampening of the momentum.")
    nesterov: Flag | None = Field(None, description="SGD: Nesterov momentum.")
    alpha: Rate | None = Field(None, description="RMSprop: smoothing.")
    centered: Flag | None = Field(None, description="RMSprop: normalise by the variance.")
    lr_decay: NotNegative | None = Field(None, description="AdaGrad: decay of the learning rate.")
    initial_accumulator_value: NotNegative | None = Field(None, description="AdaGrad: first accumulator.")


_SCHEDULE_NEEDS = {
    "constant": (),
    "step": ("step_size", "gamma"),
    "exponential": ("gamma",),
    "cosine": (),
    "warmup_cosine": ("warmup_rounds",),
}
_SCHEDULE_MAY = {"cosine": ("min_learning_rate",), "warmup_cosine": ("min_learning_rate",)}


class LrSchedule(Section):
    """How the learning rate changes from round to round."""

    type: Literal["constant", "step", "exponential", "cosine", "warmup_cosine"] = Field(
        description="step: times gamma every step_size rounds. exponential: times gamma every round. "
        "cosine: half a wave down to min_learning_rate. warmup_cosine: a climb in equal parts before it."
    )
    gamma: Annotated[Positive, Field(le=1)] | None = Field(
        None, description="step, exponential: the factor, above 0 to 1."
    )
    step_size: Count | None = Field(None, description="step: rounds from one step to the next.")
    min_learning_rate: NotNegative | None = Field(
        None, description="cosine, warmup_cosine: the rate that the last round comes close to; 0 if not given."
    )
    warmup_rounds: Count | None = Field(None, description="warmup_cosine: rounds before the full rate.")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        needs = _SCHEDULE_NEEDS[self.type]
        for name in ("gamma", "step_size", "min_learning_rate", "warmup_rounds"):
            given = getattr(self, name) is not None
            if name in needs and not given:
                raise ValueError(f"{self.type} needs {name}")
            if given and name not in (*needs, *_SCHEDULE_MAY.get(self.type, ())):
                raise ValueError(f"{name} is no setting of {self.type}")
        return self


class ServerOptimizer(Section):
    """What the server makes of a round's mean update, in FedOpt and its kin (Reddi et al. 2021)."""

    name: Literal["SGD", "AdaGrad", "Adam", "Yogi"] | None = Field(
        None, description="The server's optimizer; SGD with momentum is FedAvgM. FedAdam and FedYogi say it themselves."
    )
    learning_rate: Positive | None = Field(
        None, description="The server's step size; 1 for SGD and 0.1 for the others if not given."
    )
    momentum: Beta | None = Field(None, description="SGD: momentum; 0.9 if not given.")
    beta1: Beta | None = Field(
        None, description="AdaGrad, Adam, Yogi: decay of the first moment; 0.9 if not given, AdaGrad 0."
    )
    beta2: Beta | None = Field(None, description="Adam, Yogi: decay of the second moment; 0.99 if not given.")
    tau: Positive | None = Field(
        None, description="AdaGrad, Adam, Yogi: how little the step adapts; 0.001 if not given."
    )


class Hyperparameters(Section):
    """Settings of the optimisation."""

    learning_rate: Annotated[Number, Field(ge=0.00001, le=1.0)] = Field(description="Learning rate, 0.00001 to 1.")
    optimizer: Optimizer = Field(description="Local optimizer.")
    optimizer_kwargs: OptimizerKwargs = Field(
        default_factory=OptimizerKwargs, description="Further settings of the optimizer."
    )
    loss_function: Name | None = Field(
        None, description="Loss by its PyTorch name; follows from the output type if not given."
    )
    lr_schedule: LrSchedule | None = Field(None, description="How the learning rate changes from round to round.")
    mu: NotNegative | None = Field(None, description="FedProx: weight of the proximal term.")
    server_optimizer: ServerOptimizer | None = Field(
        None, description="FedOpt, FedAdam, FedYogi: what the server makes of the mean update."
    )
    class_weights: Annotated[tuple[Positive, ...], Field(min_length=2)] | None = Field(
        None, description="Weight of each class in the loss, in the order of labels."
    )


class EarlyStopping(Section):
    """When training ends before the last round."""

    enabled: Flag = Field(True, description="Whether training may end early.")
    patience: Count | None = Field(None, description="Rounds without improvement after which it ends.")
    metric: Name | None = Field(None, description="The metric watched.")
    min_delta: NotNegative = Field(0.0, description="Change of the metric up to which it counts as none.")
    threshold: Number | None = Field(None, description="Value of the metric at which training is good enough.")


class GlobalTraining(Section):
    """Training over rounds."""

    num_rounds: Count = Field(10, description="Number of federated rounds.")
    early_stopping: EarlyStopping | None = Field(None, description="When training ends early.")


class TrainingSpec(Section):
    """Algorithm, optimisation and rounds."""

    algorithm: Algorithm = Field(description="Federated learning algorithm.")
    hyperparameters: Hyperparameters = Field(description="Settings of the optimisation.")
    local_epochs: Annotated[Count, Field(le=100)] = Field(description="Local epochs per round, 1 to 100.")
    batch_size: Annotated[Count, Field(le=1024)] = Field(description="Samples per local batch, 1 to 1024.")
    shuffle: Flag = Field(True, description="Whether a client shuffles its samples in each epoch.")
    seed: Natural = Field(0, description="Seed from which all randomness of the job is derived.")
    global_training: GlobalTraining = Field(default_factory=GlobalTraining, description="Training over rounds.")
