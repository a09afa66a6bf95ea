"""The specs of a job as a ConfigMap, and where they lie in a pod."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fedloom.specs.bundle import FILES, JobBundle, job_files
from fedloom.specs.canonical import digest, sha256
from fedloom.specs.locations import parse_location
from fedloom.specs.model_source import parse_model_source
from fedloom.specs.problems import Problem, SpecError

MOUNT = "/job"
_MOST_BYTES = 1 << 20
_KEY = re.compile(r"[-._A-Za-z0-9]{1,253}")


@dataclass(frozen=True)
class SpecsMap:
    """The files that a pod compiles its plan from.

    Attributes:
        job: Path of the job in a pod.
        data: Text by key.
        binary: Base64 by key.
        paths: By key, the path below the mount, where it is not the key itself.
    """

    job: str
    data: dict[str, str] = field(default_factory=dict)
    binary: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of what pods see, 64 hex digits."""
        return digest([self.data, self.binary, self.paths])


def specs_map(bundle: JobBundle, path: Path) -> SpecsMap:
    """The specs below their common folder, so that references between them hold.

    Args:
        bundle: The loaded specs.
        path: What they were loaded from: a job folder or file.

    Raises:
        SpecError: when a ConfigMap cannot hold them.
    """
    files = [_absolute(file) for file in _files(bundle, path)]
    root = Path(os.path.commonpath([file.parent for file in files]))
    named = path.name in FILES["job"]
    job = path.resolve() if path.is_dir() else _absolute(path).parent if named else _absolute(path)
    made = SpecsMap(str(PurePosixPath(MOUNT, job.relative_to(root).as_posix())))
    size = 0
    for file in sorted(set(files)):
        relative = file.relative_to(root).as_posix()
        key = _key(relative)
        if key != relative:
            made.paths[key] = relative
        content = file.read_bytes()
        size += len(content)
        try:
            made.data[key] = content.decode("utf-8")
        except UnicodeDecodeError:
            made.binary[key] = base64.b64encode(content).decode("ascii")
    if size > _MOST_BYTES * 3 // 4:  # base64 and the rest of the object need room
        message = f"the specs have {size:,} bytes; a ConfigMap holds less than {_MOST_BYTES:,}"
        hint = "leave out fleet columns that no selector reads, and put models and updates behind a URL"
        raise SpecError([Problem("error", message, str(path), hint=hint)])
    return made


def _files(bundle: JobBundle, path: Path) -> list[Path]:
    found = list(job_files(path).values())
    if bundle.contract_path is not None:
        found.append(bundle.contract_path)
    fleet = bundle.documents.get("fleet")
    if fleet is not None and isinstance(fleet.data, dict) and fleet.data.get("clients_file"):
        found.append(bundle.folder / fleet.data["clients_file"])
    module = (bundle.job.model.custom_class or "").partition(":")[0].partition(".")[0]
    if bundle.job.model.architecture == "Custom" and module:
        own = [bundle.folder / f"{module}.py", *sorted((bundle.folder / module).rglob("*.py"))]
        found += [file for file in own if file.is_file()]
    return found + _given(bundle)


def _given(bundle: JobBundle) -> list[Path]:
    """Files of the job folder that a run reads besides the specs: a trained model, and given updates."""
    job, found = bundle.job, []
    source = job.model.model_source
    if source is not None and parse_model_source(source).kind == "file":
        found.append(bundle.folder / source)
    updates = job.aggregation.updates if job.aggregation is not None else None
    if updates is not None and parse_location(updates).kind == "file":
        found += sorted(file for file in (bundle.folder / updates).rglob("*") if file.is_file())
    return found


def _absolute(path: Path) -> Path:
    """The path with its folder resolved; a link keeps the name by which the specs call it."""
    return path.parent.resolve() / path.name


def _key(relative: str) -> str:
    if _KEY.fullmatch(relative):
        return relative
    plain = re.sub(r"[^-._A-Za-z0-9]+", "-", relative)[-200:]
    return f"{sha256(relative.encode())[:8]}-{plain}"
