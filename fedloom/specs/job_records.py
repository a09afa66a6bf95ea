"""What a job says for people and auditors: compliance, outputs, monitoring, estimates, history."""

from typing import Annotated, Literal

from pydantic import Field

from fedloom.specs.base import FreeForm, Section, Semver
from fedloom.specs.fields import AlertSeverity, Count, Date, Flag, Name


class ComplianceSpec(Section):
    """Certification, audit and export control."""

    certification_level: (
        Literal["DO-178C Level A", "DO-178C Level B", "DO-178C Level C", "DO-178C Level D", "none"] | None
    ) = Field(None, description="Aviation certification level.")
    certification_scope: str | None = Field(None, description="What the certification covers.")
    audit_trail: Flag = Field(False, description="Whether an audit trail is kept.")
    immutable_logs: Flag | None = Field(None, description="Whether the audit trail cannot be changed.")
    retention_period: Name | None = Field(None, description="How long the audit trail is kept, e.g. 5 years.")
    export_control: Literal["ITAR", "EAR", "none"] | None = Field(None, description="Export control classification.")
    approval_required: Flag | None = Field(None, description="Whether an export needs approval.")
    approved_jurisdictions: tuple[Name, ...] = Field((), description="Where the model may go.")
    data_protection: dict[str, Flag | str] | None = Field(None, description="Data protection, for people.")


class OutputSpec(Section):
    """What a run leaves behind."""

    report_format: Literal["json", "html", "markdown", "pdf"] | None = Field(None, description="Format of the report.")
    report_destination: Name | None = Field(None, description="Where the report goes.")
    generate_confusion_matrix: Flag = Field(False, description="Whether it has a confusion matrix.")
    generate_roc_curve: Flag = Field(False, description="Whether it has a ROC curve.")
    generate_calibration_plot: Flag = Field(False, description="Whether it has a calibration plot.")
    save_aggregated_model: Flag = Field(True, description="Whether the global model is kept.")
    destination: Name | None = Field(None, description="Where the global model goes.")
    format: Literal["safetensors", "pytorch", "tensorflow", "onnx"] | None = Field(
        None, description="Format of the global model."
    )
    save_metadata: Flag = Field(True, description="Whether the run's records are kept with it.")
    metadata_includes: tuple[Name, ...] = Field((), description="Which records.")


class VersioningSpec(Section):
    """How the model's version grows."""

    auto_version: Flag = Field(False, description="Whether a run gives the model a new version.")
    version_format: Literal["semantic"] = Field("semantic", description="Form of the version.")
    increment: Literal["major", "minor", "patch"] = Field("minor", description="The part that grows.")


class JobAlert(Section):
    """A condition that is reported."""

    name: Name = Field(description="Name of the alert.")
    condition: Name = Field(description="When it is raised, e.g. participation_rate < 0.5.")
    severity: AlertSeverity | None = Field(None, description="How bad it is.")
    channels: tuple[Name, ...] = Field((), description="Where it is sent.")


class Reporting(Section):
    """Regular reports."""

    frequency: Literal["daily", "weekly", "monthly", "per_round"] | None = Field(None, description="How often.")
    recipients: tuple[Name, ...] = Field((), description="To whom.")
    format: Name | None = Field(None, description="Format, e.g. pdf.")


class MonitoringSpec(Section):
    """What is watched while the job runs."""

    dashboards: tuple[Name, ...] = Field((), description="Dashboards that show the job.")
    log_aggregation_details: Flag = Field(False, description="Whether each aggregation is logged in detail.")
    track_convergence: Flag = Field(False, description="Whether convergence is recorded.")
    alerts: tuple[JobAlert, ...] = Field((), description="Alerts raised.")
    reporting: Reporting | None = Field(None, description="Regular reports.")


class ModelSize(Section):
    """Estimated size of the model."""

    parameters: Count | None = Field(None, description="Number of parameters.")
    storage: Name | None = Field(None, description="Size on disk, e.g. 2 MB.")


class ResourceEstimation(Section):
    """Estimates written down by people; fedloom computes its own."""

    model_size: ModelSize | None = Field(None, description="Size of the model.")
    client_compute: FreeForm | None = Field(None, description="Load on a client (kept for people).")
    network: FreeForm | None = Field(None, description="Traffic (kept for people).")
    server_compute: FreeForm | None = Field(None, description="Load on the server (kept for people).")


class RelatedDocument(Section):
    """A document that belongs to the job."""

    path: Name = Field(description="Where it lies.")
    description: str | None = Field(None, description="What it is.")


class Change(Section):
    """An entry of the job's history."""

    version: Semver = Field(description="Version that the change made.")
    date: Date | None = Field(None, description="When.")
    author: str | None = Field(None, description="Who.")
    changes: Annotated[str, Field(min_length=1)] = Field(description="What changed.")
