"""The data contract: what the clients' data is, above all which signals it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedloom.specs.base import FreeForm, Section, Semver
from fedloom.specs.fields import Count, Date, Flag, Name, Number, Positive, Rate

SignalName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=128)]


class ContractMetadata(Section):
    """Who the contract is."""

    contract_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = Field(
        description="Unique id: letters, digits, '_' and '-'."
    )
    version: Semver = Field(description="Semantic version of the contract, e.g. 1.0.0.")
    status: Literal["draft", "active", "deprecated", "retired"] = Field(
        "active", description="Where the contract is in its life."
    )
    description: str | None = Field(None, description="What the data is.")
    owner: str | None = Field(None, description="Who answers for it.")
    contact: str | None = Field(None, description="How they are reached.")
    created_date: Date | None = Field(None, description="Day on which it was written.")
    updated_date: Date | None = Field(None, description="Day of the last change.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.created_date and self.updated_date and self.updated_date < self.created_date:
            raise ValueError(f"updated_date ({self.updated_date}) is before created_date")
        return self


class Signal(Section):
    """One signal (column) of the data."""

    name: SignalName = Field(description="Name of the signal, and of its column.")
    unit: str | None = Field(None, description="Unit, e.g. 'g' or 'rad/s'.")
    description: str | None = Field(None, description="What is measured.")
    min: Number | None = Field(None, description="Lowest plausible value.")
    max: Number | None = Field(None, description="Highest plausible value.")
    mean: Number | None = Field(None, description="Nominal mean; inputs are centred on it.")
    std: Positive | None = Field(None, description="Nominal standard deviation; inputs are divided by it.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"signal {self.name}: min ({self.min:g}) is above max ({self.max:g})")
        if self.mean is not None:
            below = self.min is not None and self.mean < self.min
            above = self.max is not None and self.mean > self.max
            if below or above:
                raise ValueError(f"signal {self.name}: mean ({self.mean:g}) is not between min and max")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"signal {self.name}: give both mean and std, or neither")
        return self


class DataSchema(Section):
    """The form of the data."""

    format: Name = Field(description="Format of the files, e.g. parquet or avro.")
    file: str | None = Field(None, description="File with the formal schema, beside the contract.")
    version: Semver | None = Field(None, description="Semantic version of the schema.")
    namespace: str | None = Field(None, description="Namespace of the schema.")
    signal_categories: tuple[str, ...] = Field((), description="Kinds of signals, for people.")
    total_signals: Count | None = Field(None, description="How many signals there are.")
    sampling_rates: str | None = Field(None, description="Rates at which signals are sampled.")
    signals: tuple[Signal, ...] = Field((), description="The signals (an addition of fedloom).")
    signal_groups: dict[str, tuple[SignalName, ...]] = Field(
        default_factory=dict,
        description="Groups of signals by name, for 'contract.yaml#group' (an addition of fedloom).",
    )
    label_column: SignalName | None = Field(None, description="The column with the label (an addition of fedloom).")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [signal.name for signal in self.signals]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"signals named twice: {', '.join(twice)}")
        if names and self.total_signals not in (None, len(names)):
            raise ValueError(f"total_signals is {self.total_signals}, but {len(names)} signals are listed")
        if self.label_column in names:
            raise ValueError(f"label_column {self.label_column!r} is also listed as a signal")
        for group, members in self.signal_groups.items():
            if not members:
                raise ValueError(f"signal group {group!r} is empty")
            if len(set(members)) < len(members):
                raise ValueError(f"signal group {group!r} names a signal twice")
            unknown = [name for name in members if names and name not in names]
            if unknown:
                raise ValueError(f"signal group {group!r} names unknown signals: {', '.join(unknown)}")
        return self


class ContractConstraints(Section):
    """Data quality constraints."""

    file: str | None = Field(None, description="File with the constraints, beside the contract.")
    summary: tuple[str, ...] = Field((), description="The constraints in words.")
    enforcement_point: str | None = Field(None, description="Where they are enforced.")
    action_on_violation: str | None = Field(None, description="What happens to data that violates them.")


class ContractDp(Section):
    """The differential privacy that use of the data demands."""

    enabled: Flag = Field(description="Whether differential privacy is demanded.")
    epsilon: Positive | None = Field(None, description="Largest epsilon.")
    delta: Rate | None = Field(None, description="Largest delta.")
    mechanism: str | None = Field(None, description="The mechanism, e.g. DP-SGD.")


class ContractPrivacy(Section):
    """How the data protects people and operators."""

    pii_map_file: str | None = Field(None, description="File that maps personal data, beside the contract.")
    dp_policy_file: str | None = Field(
        None, description="File with the differential privacy policy, beside the contract."
    )
    pseudonymisation: FreeForm | None = Field(None, description="How ids are replaced (kept for people).")
    data_minimization: FreeForm | None = Field(None, description="What is left out (kept for people).")
    differential_privacy: ContractDp | None = Field(
        None, description="The differential privacy that use of the data demands."
    )
    retention: FreeForm | None = Field(None, description="How long data is kept (kept for people).")


class ContractSlas(Section):
    """Service levels of the data stream."""

    file: str | None = Field(None, description="File with the service levels, beside the contract.")
    availability: FreeForm | None = Field(None, description="Availability (kept for people).")
    latency: FreeForm | None = Field(None, description="Latency (kept for people).")
    data_quality: FreeForm | None = Field(None, description="Data quality (kept for people).")
    throughput: FreeForm | None = Field(None, description="Throughput (kept for people).")


class DataContract(Section):
    """A data contract: signals, constraints, privacy, service levels."""

    contract_metadata: ContractMetadata = Field(description="Who the contract is.")
    schema_: DataSchema = Field(alias="schema", description="The form of the data.")
    constraints: ContractConstraints | None = Field(None, description="Data quality constraints.")
    privacy: ContractPrivacy | None = Field(None, description="How people are protected.")
    slas: ContractSlas | None = Field(None, description="Service levels.")
    validation: FreeForm | None = Field(None, description="How the contract is tested (kept for people).")
    examples: FreeForm | None = Field(None, description="Sample data (kept for people).")
    integration: FreeForm | None = Field(None, description="Sources and consumers (kept for people).")
    compliance: FreeForm | None = Field(None, description="Law and certification (kept for people).")
    change_control: FreeForm | None = Field(None, description="Approvals (kept for people).")
    related_contracts: tuple[FreeForm, ...] = Field((), description="Other contracts (kept for people).")
    use_cases: tuple[FreeForm, ...] = Field((), description="What the data is for (kept for people).")
    performance: FreeForm | None = Field(None, description="Sizes and volumes (kept for people).")
    monitoring: FreeForm | None = Field(None, description="How the stream is watched (kept for people).")
    support: FreeForm | None = Field(None, description="Where help is found (kept for people).")
    change_history: tuple[FreeForm, ...] = Field((), description="Past changes (kept for people).")


@dataclass(frozen=True)
class SignalCatalog:
    """What a contract says about signals.

    Attributes:
        names: The signals, in the contract's order; empty when it does not list them.
        groups: Names of signals by group.
        nominal: Nominal (mean, standard deviation) by signal, where given.
        label_column: The column with the label, if named.
    """

    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    nominal: Mapping[str, tuple[float, float]]
    label_column: str | None


def signal_catalog(contract: DataContract) -> SignalCatalog:
    """The signals, groups and nominal values that the contract names."""
    schema = contract.schema_
    return SignalCatalog(
        names=tuple(signal.name for signal in schema.signals),
        groups=dict(schema.signal_groups),
        nominal={
            signal.name: (signal.mean, signal.std)
            for signal in schema.signals
            if signal.mean is not None and signal.std is not None
        },
        label_column=schema.label_column,
    )
