"""What people want to read about a run and no step acts upon: names, purpose, data, the form of the report."""

from __future__ import annotations

from typing import Any

from fedloom.flows.data import dataset_names
from fedloom.specs.bundle import JobBundle
from fedloom.specs.canonical import plain
from fedloom.tasks.datasets import statement

_SECTIONS = ("confusion_matrix", "roc_curve", "calibration_plot")


def about(bundle: JobBundle) -> dict[str, Any]:
    """The words of a job, for reports; they are not part of the plan, and so not of its digest."""
    job, contract, fleet = bundle.job, bundle.contract, bundle.fleet
    output = job.output
    asked = [] if output is None else [name for name in _SECTIONS if getattr(output, f"generate_{name}")]
    return {
        "name": job.metadata.name,
        "description": job.metadata.description,
        "owner": job.metadata.owner,
        "contact": job.metadata.contact,
        "status": job.metadata.status,
        "tags": list(job.tags),
        "data": [statement(name) for name in dataset_names(bundle)],
        "holdout": None if job.validation.holdout_dataset is None else job.validation.holdout_dataset.source,
        "contract": None
        if contract is None
        else {
            "id": contract.contract_metadata.contract_id,
            "version": contract.contract_metadata.version,
            "description": contract.contract_metadata.description,
        },
        "fleet": None if fleet is None else {"id": fleet.fleet_id, "version": fleet.version, "clients": len(fleet)},
        "compliance": None if job.compliance is None else plain(job.compliance.model_dump(exclude_none=True)),
        "report": {
            "format": None if output is None else output.report_format,
            # A job that names sections gets these; one that names none gets all that there are data for.
            "sections": asked or list(_SECTIONS),
        },
    }
