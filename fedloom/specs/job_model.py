"""The model of a job: what it reads, what it predicts, how it is built."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictInt

from fedloom.specs.base import Section, Semver
from fedloom.specs.fields import Count, Flag, Name, Number, Positive

Architecture = Literal["LSTM", "GRU", "Transformer", "CNN", "Autoencoder", "MLP", "ResNet", "Custom"]
OutputType = Literal["binary_classification", "multi_class", "regression", "reconstruction_error"]
Dropout = Annotated[Number, Field(ge=0, lt=1)]


class InputSchema(Section):
    """What the model reads."""

    reference: Name | None = Field(
        None,
        description="The data contract: 'name:version' (found below contracts/ or DATA_CONTRACTS/) or a path "
        "relative to the job folder.",
    )
    signal_group: Name | None = Field(
        None, description="A signal group of the contract, all of whose signals are read; instead of signals."
    )
    signals: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        None, description="Names of the signals read, in the order of the model's inputs."
    )
    window_size: Count | None = Field(None, description="Samples in one window of the time series.")
    stride: Count | None = Field(
        None, description="Samples from the start of one window to the next; window_size if not given."
    )
    sampling_rate: Positive | None = Field(None, description="Samples per second, in Hz.")


class OutputSchema(Section):
    """What the model predicts."""

    type: OutputType = Field(description="Kind of prediction.")
    labels: Annotated[tuple[StrictInt | str, ...], Field(min_length=2)] | None = Field(
        None, description="The classes, in the order of the model's outputs."
    )
    threshold: Number | None = Field(
        None, description="Score from which on a sample counts as positive (a probability for classification)."
    )
    label_column: Name = Field("label", description="Column of the data that holds the truth.")


class ModelHyperparameters(Section):
    """Size and shape of the model. Custom classes may take further keys: their keyword arguments."""

    model_config = ConfigDict(extra="allow")

    input_dim: Count | None = Field(None, description="Input signals; follows from signals if not given.")
    hidden_dim: Count | None = Field(None, description="Width of the hidden state or layers.")
    hidden_dims: Annotated[tuple[Count, ...], Field(min_length=1)] | None = Field(
        None, description="Widths of the hidden layers, one by one."
    )
    latent_dim: Count | None = Field(None, description="Width of an autoencoder's bottleneck.")
    num_layers: Count | None = Field(None, description="Number of layers.")
    num_heads: Count | None = Field(None, description="Attention heads of a Transformer.")
    num_channels: Annotated[tuple[Count, ...], Field(min_length=1)] | None = Field(
        None, description="Channels of the convolutions, one by one."
    )
    kernel_size: Count | None = Field(None, description="Width of the convolutions.")
    dropout: Dropout | None = Field(None, description="Share of activations dropped, 0 up to but not including 1.")
    sequence_length: Count | None = Field(None, description="Steps per sequence; equals window_size.")
    bidirectional: Flag | None = Field(None, description="Whether a recurrent model reads both ways.")
    num_classes: Count | None = Field(None, description="Number of classes; follows from labels if not given.")
    activation: Literal["relu", "tanh", "gelu", "elu", "leaky_relu", "sigmoid"] | None = Field(
        None, description="Activation between layers."
    )


class ModelSpec(Section):
    """Architecture, inputs and outputs of the model."""

    architecture: Architecture = Field(description="Model architecture; Custom names a class of yours.")
    framework: Literal["PyTorch", "TensorFlow", "JAX"] = Field("PyTorch", description="ML framework.")
    version: Semver = Field(description="Semantic version of the model, e.g. 1.0.0.")
    custom_class: str | None = Field(None, description="For architecture Custom: the class, as 'package.module:Class'.")
    model_source: Name | None = Field(
        None,
        description="A trained model to start from or to evaluate: champion, champion:JOB_ID, run:RUN_ID, "
        "or a .safetensors file in the job folder or at a URL.",
    )
    input_schema: InputSchema = Field(description="What the model reads.")
    output_schema: OutputSchema = Field(description="What the model predicts.")
    model_hyperparameters: ModelHyperparameters = Field(
        default_factory=ModelHyperparameters, description="Size and shape of the model."
    )
