"""Rendered jobs on disk: written as a whole, and compared with what is there."""

from __future__ import annotations

import difflib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedloom.deploy.argo.render import FILES, KUSTOMIZATION, TEMPLATE, Rendered, render_job
from fedloom.deploy.argo.values import Values
from fedloom.specs.bundle import job_file, resolve_job
from fedloom.specs.problems import Problem, SpecError


def find_jobs(names: Sequence[str]) -> list[Path]:
    """The jobs that a user names: files, job folders, packaged examples, and folders with jobs below them.

    Raises:
        SpecError: when there is none of a name.
    """
    found: list[Path] = []
    for name in names:
        path = resolve_job(name)
        below = sorted({file.parent for file in path.rglob("job.y*ml")}) if is_collection(path) else []
        found += below or [path]
    return list(dict.fromkeys(found))


def is_collection(path: Path) -> bool:
    """Whether a path is a folder of jobs, and no job itself."""
    return path.is_dir() and job_file(path) is None


def render_jobs(paths: Sequence[Path], values: Values) -> list[Rendered]:
    """Render jobs, each into a folder of its name.

    Raises:
        SpecError: with the problems of all jobs.
    """
    jobs: dict[str, Rendered] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            job = render_job(path, values)
        except SpecError as error:
            problems += error.problems
            continue
        if job.name in jobs:
            problems.append(Problem("error", f"another job is called {job.name} too", str(path)))
        jobs[job.name] = job
    if problems:
        raise SpecError(problems)
    return list(jobs.values())


def write(jobs: Sequence[Rendered], folder: Path) -> list[Path]:
    """Write the manifests, each file as a whole, and remove those of these jobs that are rendered no more.

    Returns:
        The files, in order.

    Raises:
        OSError: when the folder cannot be written; then nothing has changed.
    """
    texts = {folder / job.name / name: text for job in jobs for name, text in job.files.items()}
    ready: list[tuple[Path, Path]] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            ready.append((path.with_name(f".{path.name}.{uuid.uuid4().hex}"), path))
            ready[-1][0].write_text(text, encoding="utf-8", newline="")
        for temporary, path in ready:
            os.replace(temporary, path)
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)
    for path in _rendered_no_more(jobs, folder):
        path.unlink()
    return list(texts)


def as_stream(jobs: Sequence[Rendered]) -> str:
    """All documents of the jobs as one text; lists of files have no meaning there."""
    return "---\n".join(text for job in jobs for name, text in job.files.items() if name != KUSTOMIZATION)


def drift(jobs: Sequence[Rendered], folder: Path, all_jobs: bool = False) -> str:
    """How a folder differs from what would be rendered, as unified diffs; "" when it does not.

    Args:
        jobs: What would be rendered.
        folder: What is there.
        all_jobs: The folder should hold no other job's manifests.

    Raises:
        OSError: when the folder cannot be read.
    """
    lines: list[str] = []
    for job in jobs:
        for name, text in job.files.items():
            path = folder / job.name / name
            lines += _diff(path, text) if path.exists() else [f"{path} is missing\n"]
    lines += [f"{path} is rendered no more\n" for path in _rendered_no_more(jobs, folder)]
    if all_jobs:
        ours = {job.name for job in jobs}
        others = sorted(path.parent for path in folder.glob(f"*/{TEMPLATE}") if path.parent.name not in ours)
        lines += [f"{path} belongs to no job\n" for path in others]
    return "".join(lines)


def _diff(path: Path, wanted: str) -> list[str]:
    there = path.read_text(encoding="utf-8", errors="replace")
    names = (f"{path} (as it is)", f"{path} (as rendered)")
    found = difflib.unified_diff(there.splitlines(True), wanted.splitlines(True), *names)
    return [line if line.endswith("\n") else f"{line}\n" for line in found]


def _rendered_no_more(jobs: Sequence[Rendered], folder: Path) -> Iterator[Path]:
    for job in jobs:
        old = (folder / job.name / name for name in FILES if name not in job.files)
        yield from (path for path in old if path.is_file())
