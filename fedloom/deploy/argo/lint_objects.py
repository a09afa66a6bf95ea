"""Rules for any object: its fields, names, labels; and for those beside workflows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedloom.deploy.argo.findings import Findings, items, section
from fedloom.specs.trails import Trail

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_NAME_LIMITS = {"WorkflowTemplate": 63, "Workflow": 63, "CronWorkflow": 52}
_GENERATED = 5
_OLD_FIELDS = {"schedule", "mutex", "semaphore", "podPriority"}
"""Fields that v4 took away."""
_MOST_BYTES = 1 << 20


def structure(found: Findings) -> bool:
    """Types are right, and no field is unknown, as Hera's models of Argo's objects know them.

    Returns:
        Whether the types are right, so that other rules can be looked at.
    """
    from hera.workflows import models

    data = _numbers_as_text(found.document.data)
    if data["kind"] == "CronWorkflow" and isinstance(data.get("spec"), dict):
        data["spec"].setdefault("schedules", [])  # whether it may be missing is a question of the version
    try:
        model = getattr(models, data["kind"]).model_validate(data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            found.error(_trail(details["loc"], data), details["msg"].lower())
        return False
    _unknown(found, (), data, model.model_dump(by_alias=True, exclude_unset=True))
    return True


def _numbers_as_text(value: Any, quantities: bool = False) -> Any:
    """The data with quantities and values of parameters as text: Kubernetes and Argo take numbers for them."""
    if isinstance(value, list):
        return [_numbers_as_text(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for key, each in value.items():
        number = isinstance(each, int | float) and not isinstance(each, bool)
        text = number and (quantities or key in ("value", "default", "sizeLimit"))
        made[key] = str(each) if text else _numbers_as_text(each, key in ("requests", "limits"))
    return made


def _trail(loc: tuple[str | int, ...], data: Any) -> Trail:
    """The part of pydantic's place that is in the document; the rest names members of unions."""
    trail: Trail = ()
    for step in loc:
        inside = step in data if isinstance(data, dict) else isinstance(data, list) and isinstance(step, int)
        if not inside:
            missing = isinstance(data, dict) and step == loc[-1]
            return (*trail, step) if missing else trail
        trail, data = (*trail, step), data[step]
    return trail


def _unknown(found: Findings, trail: Trail, data: Any, known: Any) -> None:
    if isinstance(data, list) and isinstance(known, list):
        for i, (each, its) in enumerate(zip(data, known, strict=False)):
            _unknown(found, (*trail, i), each, its)
    if not isinstance(data, dict) or not isinstance(known, dict):
        return
    for key, value in data.items():
        if key in known:
            _unknown(found, (*trail, key), value, known[key])
        elif key in _OLD_FIELDS:
            if found.version != "3.7":
                found.error((*trail, key), f"{key} is gone since Argo 4", f"write the list {_plural(key)}")
        else:
            found.error((*trail, key), "is no field that Argo knows")


def _plural(key: str) -> str:
    return {"schedule": "schedules", "mutex": "mutexes", "semaphore": "semaphores"}.get(key, "priorityClassName")


def metadata(found: Findings) -> None:
    """Names and labels are what Kubernetes accepts, and leave room for what Argo adds."""
    data = found.document.data
    said, kind = section(data, "metadata"), data["kind"]
    name, stem = said.get("name"), said.get("generateName")
    limit = _NAME_LIMITS.get(kind, 253)
    if name is None and stem is None:
        found.error(("metadata",), "the object has no name")
    if name is not None:
        at: Trail = ("metadata", "name")
        if not isinstance(name, str) or not _SUBDOMAIN.fullmatch(name):
            found.error(at, f"{name!r} is no name: lower-case letters, digits, inner hyphens and dots")
        elif len(name) > limit:
            found.error(at, f"{name} has {len(name)} characters; a {kind} has at most {limit}")
    elif stem is not None:
        at = ("metadata", "generateName")
        if not isinstance(stem, str) or not _SUBDOMAIN.fullmatch(f"{stem}x"):
            found.error(at, f"{stem!r} is no start of a name: lower-case letters, digits and hyphens")
        elif len(stem) + _GENERATED > limit:
            found.error(at, f"{stem} leaves no room for {_GENERATED} more characters of {limit}")
    _labels(found, ("metadata", "labels"), said.get("labels"))
    for key in section(said, "annotations"):
        if not _LABEL_KEY.fullmatch(str(key)):
            found.error(("metadata", "annotations", key), f"{key!r} is no key of an annotation")


def _labels(found: Findings, trail: Trail, labels: Any) -> None:
    for key, value in (labels or {}).items() if isinstance(labels, dict | None) else ():
        if not _LABEL_KEY.fullmatch(str(key)):
            found.error((*trail, key), f"{key!r} is no key of a label")
        if not isinstance(value, str) or not _LABEL.fullmatch(value):
            found.error((*trail, key), f"{value!r} is no label: text of up to 63 letters, digits, '-', '_' and '.'")


def config_map(found: Findings) -> None:
    """Keys are file names, and the whole fits."""
    size, data = 0, found.document.data
    for part in ("data", "binaryData"):
        for key, value in section(data, part).items():
            if not _KEY.fullmatch(str(key)):
                found.error((part, key), f"{key!r} is no key: letters, digits, '-', '_' and '.'")
            if not isinstance(value, str):
                found.error((part, key), "is no text", "put it into quotes")
            size += len(str(value).encode())
    if size > _MOST_BYTES:
        found.error((), f"holds {size:,} bytes; a ConfigMap has at most {_MOST_BYTES:,}")


def kustomization(found: Findings, files: set[str]) -> None:
    """What is listed lies beside it, on disk or among the files that are checked together."""
    folder = Path(found.document.file).parent
    for i, name in enumerate(items(found.document.data, "resources")):
        path = folder / str(name)
        if "://" not in str(name) and str(path) not in files and not path.exists():
            found.error(("resources", i), f"there is no {path}")
