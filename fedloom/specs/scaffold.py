"""New job folders from the packaged templates."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

from fedloom.specs.problems import Problem, SpecError

HERE = Path(__file__).parent
TEMPLATES = ("train", "eval", "aggregate")
SCHEMA_FOLDER = ".fedloom/schemas"

_NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
_LONGEST = 40
# What the templates hold where a new job has its own name and date.
_NAME_MARK = "my-job"
_DATE_MARK = "2026-11-22"
_SCHEMA_MARK = "$schema=../../schemas/"


def init_job(name: str, template: str, into: Path) -> list[Path]:
    """Write a new job folder from a template, whole or not at all.

    The JSON Schemas that the files name are copied into the folder, so that editors complete and
    check the specs wherever the folder is moved, without a network.

    Args:
        name: Name of the job and of its folder; the job's id is ``fl-`` and the name.
        template: One of TEMPLATES.
        into: The folder in which the job folder is made.

    Returns:
        The spec files written, sorted.

    Raises:
        SpecError: The name or template is not valid, the folder exists, or cannot be written.
    """
    _check_name(name)
    if template not in TEMPLATES:
        near = difflib.get_close_matches(template, TEMPLATES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(TEMPLATES)}"
        raise _refuse(name, f"there is no template {template!r}", hint)
    target = into / name
    if target.exists() or target.is_symlink():
        raise _refuse(str(target), "exists already", "choose another name, or move the folder away")
    try:
        into.mkdir(parents=True, exist_ok=True)
        # Hidden and beside the target, so that the final rename stays on one file system.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=into) as scratch:
            draft = Path(scratch) / name
            _write(draft, name, template)
            os.rename(draft, target)
    except OSError as error:
        raise _refuse(str(target), f"cannot be written: {(error.strerror or str(error)).lower()}") from None
    return sorted(target.glob("*.yaml"))


def _write(folder: Path, name: str, template: str) -> None:
    schemas = folder / SCHEMA_FOLDER
    schemas.mkdir(parents=True)
    today = datetime.now(UTC).date().isoformat()
    short = name.removeprefix("fl-")
    for source in sorted((HERE / "templates" / template).glob("*.yaml")):
        text = source.read_text(encoding="utf-8")
        schema = HERE / "schemas" / f"{source.stem}.schema.json"
        shutil.copyfile(schema, schemas / schema.name)
        text = text.replace(_SCHEMA_MARK, f"$schema={SCHEMA_FOLDER}/")
        text = text.replace(_DATE_MARK, today).replace(_NAME_MARK, short)
        (folder / source.name).write_text(text, encoding="utf-8")
    _copy_models(HERE / "templates" / template, folder)


def _copy_models(template: Path, folder: Path) -> None:
    """A template's trained model and updates, so that a new job runs as it stands."""
    for source in sorted([*template.rglob("*.safetensors"), *template.rglob("*.json")]):
        target = folder / source.relative_to(template)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) and len(name) <= _LONGEST and name != "fl":
        return
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")[:_LONGEST].strip("-")
    rule = f"use lower-case letters a-z, digits and single hyphens, at most {_LONGEST} characters"
    hint = f"{rule}; for example {slug!r}" if slug and slug != "fl" else rule
    raise _refuse(ascii(name)[1:-1] or "NAME", f"{name!r} is no name for a job", hint)


def _refuse(place: str, message: str, hint: str | None = None) -> SpecError:
    return SpecError([Problem("error", message, place, hint=hint)])
