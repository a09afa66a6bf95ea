"""Pseudonyms: what a job wants replaced, and what of it a run ever sees.

A run reads the signals, the label and the recording of a client's data, and all columns of the fleet. Of anything else
nothing leaves a client, so that there is nothing to replace.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.flows.runnable import signals_of
from fedloom.specs.bundle import JobBundle
from fedloom.specs.problems import Severity
from fedloom.specs.trails import Trail

_CLAIM = "no_pii"
_SERIES = "series"


def pseudonym_findings(bundle: JobBundle) -> Iterator[tuple[Trail, Severity, str]]:
    """Fields that a run does read, and that it cannot replace: place, severity, message."""
    read = {*signals_of(bundle.job, bundle.contract), bundle.job.model.output_schema.label_column, _SERIES}
    columns = {"client_id", *(bundle.fleet.attributes if bundle.fleet is not None else ())}
    for field in _fields(bundle):
        at: Trail = ("privacy_config", "pseudonymisation", field)
        if field in read:
            yield at, "error", f"the model is trained on {field}: there is no use in a hash of it"
        elif field in columns:
            message = f"pseudonyms of the fleet's column {field} are not built: a run keeps the fleet as it is"
            yield at, "not built", f"{message}; write pseudonyms into the fleet, and remove this"


def pseudonym_notes(bundle: JobBundle) -> list[str]:
    """What a run need not do about them."""
    found, fields = [], _fields(bundle)
    if fields:
        found.append(
            f"pseudonymisation: no run reads {', '.join(fields)}, so nothing is there to replace; "
            "clients are named in results as the fleet names them"
        )
    if (bundle.job.privacy.pseudonymisation or {}).get(_CLAIM):
        found.append("no_pii is the job's own claim: a run does not look for personal data")
    return found


def _fields(bundle: JobBundle) -> list[str]:
    return sorted(set(bundle.job.privacy.pseudonymisation or {}) - {_CLAIM})
