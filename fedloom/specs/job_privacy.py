"""What a job promises about privacy."""

from typing import Annotated, Literal

from pydantic import Field

from fedloom.specs.base import Section
from fedloom.specs.fields import Count, DpMechanism, Flag, Natural, Number, Positive, Rate


class AdaptiveClip(Section):
    """A clipping norm that follows the updates (Andrew et al. 2021)."""

    target_quantile: Annotated[Rate, Field(gt=0, lt=1)] = Field(
        0.5, description="Share of the clients whose updates the norm shall not shorten."
    )
    learning_rate: Positive = Field(0.2, description="How fast the norm follows, per round (0.2 in the paper).")
    count_noise: Positive | None = Field(
        None,
        description="Standard deviation of the noise on the number of clients within the norm; "
        "a twentieth of the cohort, and at least noise_multiplier, if not given.",
    )


class DifferentialPrivacy(Section):
    """Noise and clipping, and the budget they must keep."""

    enabled: Flag = Field(description="Whether differential privacy is on.")
    mechanism: DpMechanism | None = Field(
        None, description="DP-SGD: noise in local training; DP-FedAvg: noise on the aggregate."
    )
    epsilon: Annotated[Number, Field(ge=0.01, le=10)] | None = Field(
        None, description="Privacy budget epsilon, 0.01 to 10."
    )
    delta: Annotated[Number, Field(ge=0, le=0.01)] | None = Field(
        None, description="Privacy budget delta, 0 to 0.01; well below 1 / clients."
    )
    noise_multiplier: Annotated[Number, Field(ge=0.1)] | None = Field(
        None, description="Standard deviation of the noise over the clipping norm, at least 0.1."
    )
    max_grad_norm: Annotated[Number, Field(ge=0.1)] | None = Field(
        None, description="Norm to which gradients or updates are clipped, at least 0.1."
    )
    sampling_rate: Annotated[Rate, Field(gt=0)] | None = Field(
        None,
        description="DP-SGD: probability that a record is in a batch, the same at every client; "
        "batch_size over the smallest client's windows if not given.",
    )
    adaptive_clip: AdaptiveClip | None = Field(
        None, description="DP-FedAvg: let the norm follow the updates, from max_grad_norm on."
    )
    sensitivity: Positive | None = Field(None, description="Bound on the L2 norm of one client's contribution.")


class SecureAggregation(Section):
    """Aggregation that shows the server only the sum."""

    enabled: Flag = Field(description="Whether secure aggregation is on.")
    protocol: Literal["threshold_paillier", "MPC", "pairwise", "two_server"] | None = Field(
        None,
        description="Protocol; pairwise is SecAgg+ with pairwise masks, and runs for the first two as well; two_server "
        "gives half of every update to each of two servers that do not work together.",
    )
    threshold: Annotated[Count, Field(ge=2)] | None = Field(
        None, description="Fewest clients whose shares can open the sum, at least 2."
    )
    dropout_tolerance: Natural | None = Field(None, description="Clients that may be lost in the middle.")
    assumed_corrupt: Annotated[Rate, Field(lt=1)] = Field(
        0.05, description="Share of a cohort that may work with the server, 0 to below 1."
    )
    clip: Positive = Field(1.0, description="Largest absolute value of a coordinate of an update; more is cut off.")


class PrivacySpec(Section):
    """Differential privacy, secure aggregation, pseudonyms."""

    differential_privacy: DifferentialPrivacy = Field(description="Differential privacy.")
    secure_aggregation: SecureAggregation = Field(description="Secure aggregation.")
    pseudonymisation: dict[str, Flag | str] | None = Field(
        None, description="By field, the method that replaces it (e.g. sha256_hash); no_pii: true or false."
    )
