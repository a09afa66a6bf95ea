"""The canonical model of a job spec."""

from typing import Annotated

from pydantic import Field

from fedloom.specs.base import Section
from fedloom.specs.fields import Email, JobKind, JobStatus, Name, Priority, Timestamp
from fedloom.specs.job_aggregation import ROBUST_ALGORITHMS, AggregationSpec
from fedloom.specs.job_model import ModelSpec
from fedloom.specs.job_orchestration import OrchestrationSpec
from fedloom.specs.job_privacy import PrivacySpec
from fedloom.specs.job_records import (
    Change,
    ComplianceSpec,
    MonitoringSpec,
    OutputSpec,
    RelatedDocument,
    ResourceEstimation,
    VersioningSpec,
)
from fedloom.specs.job_release import DeploymentSpec, ValidationSpec
from fedloom.specs.job_training import TrainingSpec


class JobMetadata(Section):
    """Who the job is."""

    job_id: Annotated[str, Field(pattern=r"^fl-[a-z0-9-]+$")] = Field(
        description="Unique id: lower-case letters, digits and hyphens. The prefix 'fl-' is added if not given."
    )
    name: Annotated[Name, Field(max_length=200)] = Field(description="Name shown to people.")
    description: Name = Field(description="Purpose and goals.")
    owner: Name = Field(description="Team or person responsible.")
    contact: Email | None = Field(None, description="E-mail address of the owner.")
    created_at: Timestamp | None = Field(None, description="When it was written (RFC 3339).")
    updated_at: Timestamp | None = Field(None, description="When it was last changed (RFC 3339).")
    kind: JobKind = Field(
        "train",
        description="train makes a model in rounds, evaluate measures one at the clients, aggregate combines updates "
        "that are given. If not given: evaluate where validation_config.evaluation_mode is true, aggregate where "
        "aggregation_config.updates says where updates lie, else train.",
    )
    status: JobStatus = Field("draft", description="Where it stands in its life.")
    priority: Priority = Field("medium", description="Its priority among other jobs.")


class Job(Section):
    """A federated learning job."""

    metadata: JobMetadata = Field(alias="job_metadata", description="Who the job is.")
    model: ModelSpec = Field(alias="model_config", description="Architecture, inputs and outputs.")
    training: TrainingSpec = Field(alias="training_config", description="Algorithm, optimisation, rounds.")
    orchestration: OrchestrationSpec = Field(alias="orchestration_config", description="Schedule, clients and rounds.")
    privacy: PrivacySpec = Field(alias="privacy_config", description="What the job promises about privacy.")
    aggregation: AggregationSpec | None = Field(
        None, alias="aggregation_config", description="How updates become a global model."
    )
    deployment: DeploymentSpec | None = Field(None, alias="deployment_config", description="How the model is released.")
    validation: ValidationSpec = Field(
        default_factory=ValidationSpec, alias="validation_config", description="How the model is judged."
    )
    compliance: ComplianceSpec | None = Field(
        None, alias="compliance_config", description="Certification, audit, export control."
    )
    output: OutputSpec | None = Field(None, description="What a run leaves behind.")
    versioning: VersioningSpec | None = Field(None, description="How the model's version grows.")
    monitoring: MonitoringSpec | None = Field(
        None, alias="monitoring_config", description="What is watched while the job runs."
    )
    resource_estimation: ResourceEstimation | None = Field(None, description="Estimates written by people.")
    tags: tuple[Name, ...] = Field((), description="Words to find the job by.")
    related_documents: tuple[RelatedDocument, ...] = Field((), description="Documents that belong to it.")
    change_history: tuple[Change, ...] = Field((), description="Past changes.")

    @property
    def kind(self) -> JobKind:
        """What a run of it does; derived where the job does not say, see `fedloom.specs.normalise`."""
        return self.metadata.kind

    @property
    def job_id(self) -> str:
        """The canonical id, with its prefix ``fl-``."""
        return self.metadata.job_id

    @property
    def weights(self) -> str:
        """What updates are weighted by, at whichever of the two places the job says it."""
        orchestration, own = self.orchestration.aggregation, self.aggregation
        if "weights" not in orchestration.model_fields_set and own is not None and own.weighting is not None:
            return own.weighting.strategy
        return orchestration.weights

    @property
    def robust_method(self) -> str | None:
        """The rule that takes the place of the weighted mean, at whichever of the two places the job says it."""
        own = self.aggregation
        if own is None:
            return None
        if own.byzantine_robust is not None and own.byzantine_robust.enabled:
            return own.byzantine_robust.method
        return ROBUST_ALGORITHMS.get(own.algorithm or "")
