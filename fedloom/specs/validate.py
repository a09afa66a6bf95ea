"""Validating files, job folders and whole trees of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.specs.bundle import TABLES, IncompleteJobError, JobBundle, job_file, job_files, load_job
from fedloom.specs.documents import Document, load_document, read_text
from fedloom.specs.kinds import KINDS, detect_kind, is_kubernetes, looks_like_spec, read_spec
from fedloom.specs.problems import Problem, SpecError, errors

_NOT_SEARCHED = frozenset({"node_modules", "__pycache__", "site-packages"})
_NO_MANIFEST = Problem("error", "is a Kubernetes manifest, not a spec", "", hint="check it with kubectl or argo lint")


@dataclass(frozen=True)
class Validation:
    """The outcome of a validation.

    Attributes:
        files: The files that were checked.
        problems: All findings, file by file.
        bundles: The jobs that could be read.
        normal_forms: By file, its data in normal form.
    """

    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    bundles: tuple[JobBundle, ...]
    normal_forms: Mapping[str, dict[str, Any]]

    @property
    def valid(self) -> bool:
        """Whether nothing was found that keeps a spec from being used."""
        return not errors(self.problems)


@dataclass(frozen=True)
class Discovery:
    """The specs below a folder.

    Attributes:
        paths: Job folders and single spec files.
        skipped: Other YAML files, each with the reason.
    """

    paths: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...]


def validate_paths(paths: Sequence[Path], schema: str | None = None) -> Validation:
    """Check files and job folders; every problem is found, none is raised.

    Args:
        paths: Spec files and job folders.
        schema: The kind that single files must be of; detected if not given.

    Raises:
        KeyError: There is no such kind.
    """
    if schema is not None and schema not in KINDS:
        raise KeyError(schema)
    work = _Work()
    for path in paths:
        try:
            work.check(Path(path), schema)
        except SpecError as error:
            work.problems += error.problems
    unique = tuple(dict.fromkeys(work.problems))
    return Validation(tuple(dict.fromkeys(work.files)), unique, tuple(work.bundles), work.normal_forms)


def discover(folder: Path) -> Discovery:
    """Find every job folder and every other spec below a folder, hidden folders left out."""
    paths: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    for base in _folders(folder):
        companions: set[Path] = set()
        if job_file(base) is not None:
            paths.append(base)
            companions = set(job_files(base).values())
        for file in sorted(base.iterdir()):
            if file.suffix not in (".yaml", ".yml") or not file.is_file() or file in companions:
                continue
            reason = _no_spec(file)
            if reason is None:
                paths.append(file)
            else:
                skipped.append((file, reason))
    return Discovery(tuple(paths), tuple(skipped))


class _Work:
    def __init__(self) -> None:
        self.files: list[str] = []
        self.problems: list[Problem] = []
        self.bundles: list[JobBundle] = []
        self.normal_forms: dict[str, dict[str, Any]] = {}

    def check(self, path: Path, schema: str | None) -> None:
        if path.is_dir():
            self._job(path)
            return
        self.files.append(str(path))
        if path.suffix in TABLES:
            from fedloom.specs.fleet import load_fleet

            load_fleet(path)
            return
        document = load_document(path) if not _is_manifest(path) else None
        if document is None:
            raise SpecError([Problem("error", _NO_MANIFEST.message, str(path), hint=_NO_MANIFEST.hint)])
        kind = schema or detect_kind(document)
        if kind == "job":
            self._job(path)
        else:
            self._single(path, kind, document)

    def _job(self, path: Path) -> None:
        self.files += [str(file) for file in job_files(path).values()]
        try:
            bundle = load_job(path)
            self.problems += bundle.warnings
        except IncompleteJobError as error:
            bundle = error.bundle
            self.problems += error.problems
        self.bundles.append(bundle)
        for document in bundle.documents.values():
            self.normal_forms[document.file] = document.data

    def _single(self, path: Path, kind: str, document: Document) -> None:
        _, spec, document = read_spec(document, kind)
        self.normal_forms[document.file] = document.data
        if kind == "registry":
            from fedloom.specs.registry import Registry, check_registry

            assert isinstance(spec, Registry)
            for trail, severity, message, hint in check_registry(spec, path):
                self.problems.append(document.problem(trail, message, hint, severity))
        elif kind == "fleet":
            from fedloom.specs.fleet import FleetSpec, fleet_of

            assert isinstance(spec, FleetSpec)
            fleet_of(spec, document, path.parent)


def _is_manifest(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") and is_kubernetes(read_text(path, str(path)))


def _folders(folder: Path) -> Iterator[Path]:
    for base, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in _NOT_SEARCHED)
        yield Path(base)


def _no_spec(file: Path) -> str | None:
    """Why a YAML file is no spec, None if it is one (perhaps a broken one)."""
    try:
        text = read_text(file, str(file))
    except SpecError as error:
        return error.problems[0].message
    if is_kubernetes(text):
        return "a Kubernetes manifest"
    return None if looks_like_spec(text) else "no spec"
