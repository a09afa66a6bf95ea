"""The trained model that a job starts from, as far as the job's folder knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from fedloom.specs.bundle import JobBundle
from fedloom.specs.locations import resolve_inside
from fedloom.specs.model_source import parse_model_source
from fedloom.specs.trails import Trail

_AT: Trail = ("model_config", "model_source")
_HINT = (
    "write champion or champion:JOB_ID (the released model of a job), run:RUN_ID (the last model of a run), "
    "or a .safetensors file in the job folder or at a URL"
)


def source_findings(bundle: JobBundle) -> Iterator[tuple[str, Trail, str, str | None]]:
    """What is wrong with the model that a job starts from: kind of file, place, message, hint."""
    source = bundle.job.model.model_source
    if source is None:
        return
    try:
        path = _own_file(bundle, source)
    except ValueError as error:
        yield "job", _AT, str(error), _HINT
        return
    if path is not None and not path.is_file():
        yield "job", _AT, f"there is no file {source} in the job folder", _HINT


def source_digest(bundle: JobBundle) -> str | None:
    """SHA-256 of the model's file, where that is one of the job's folder: another file is another run."""
    source = bundle.job.model.model_source
    path = None if source is None else _own_file(bundle, source)
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_file(bundle: JobBundle, source: str) -> Path | None:
    """The file in the job's folder that a source names; None where it names none.

    Raises:
        ValueError: when it is no model source.
    """
    parsed = parse_model_source(source)
    return resolve_inside(bundle.folder, parsed.name) if parsed.kind == "file" else None
