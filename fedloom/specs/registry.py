"""The registry: an index of jobs by state, and of the documents that they build on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from fedloom.specs.base import Section, Semver
from fedloom.specs.fields import Date, JobStatus, Name, Priority, Timestamp, parse_timestamp
from fedloom.specs.problems import Severity

State = Literal["active", "draft", "completed", "failed"]
Finding = tuple[tuple[str | int, ...], Severity, str, str | None]
"""Path in the index, severity, message, hint."""

STATES: tuple[State, ...] = ("active", "draft", "completed", "failed")


class RegistryMetadata(Section):
    """Who the registry is."""

    description: str | None = Field(None, description="What the registry is for.")
    owner: str | None = Field(None, description="Who answers for it.")
    contact: str | None = Field(None, description="How they are reached.")
    created_at: Timestamp | None = Field(None, description="When it was begun (RFC 3339).")
    updated_at: Timestamp | None = Field(None, description="When it was last changed (RFC 3339).")


class JobEntry(Section):
    """A job in the index."""

    job_id: Name = Field(description="job_id of the job.")
    name: Name = Field(description="Name shown to people.")
    version: Semver = Field(description="Semantic version of the job.")
    status: JobStatus = Field(description="State of the job; agrees with the section that it stands in.")
    owner: Name = Field(description="Who answers for the job.")
    created_at: Timestamp = Field(description="When the job was created (RFC 3339).")
    completed_at: Timestamp | None = Field(None, description="When it was completed (RFC 3339).")
    failed_at: Timestamp | None = Field(None, description="When it failed (RFC 3339).")
    failure_reason: str | None = Field(None, description="Why it failed.")
    spec_location: Name = Field(
        description="The job file, relative to the folder of the index or to that folder's parent."
    )
    model_registry_ref: str | None = Field(None, description="The model that the job trains.")
    data_contract_ref: str | None = Field(None, description="The data contract that it reads.")
    priority: Priority | None = Field(None, description="Its priority.")
    tags: tuple[str, ...] = Field((), description="Words to find it by.")


class TemplateEntry(Section):
    """A template in the index."""

    template_id: Name = Field(description="Unique id of the template.")
    name: Name = Field(description="Name shown to people.")
    description: str | None = Field(None, description="What it is for.")
    location: Name = Field(description="The file.")
    schema_ref: str | None = Field(None, description="Its JSON Schema.")


class SelectorEntry(Section):
    """A client selector in the index."""

    selector_id: Name = Field(description="Unique id of the selector.")
    name: Name = Field(description="Name shown to people.")
    description: str | None = Field(None, description="What it is for.")
    location: Name = Field(description="The file.")
    schema_ref: str | None = Field(None, description="Its JSON Schema.")


class PolicyEntry(Section):
    """A rollout policy in the index."""

    policy_id: Name = Field(description="Unique id of the policy.")
    name: Name = Field(description="Name shown to people.")
    description: str | None = Field(None, description="What it is for.")
    location: Name = Field(description="The file.")
    schema_ref: str | None = Field(None, description="Its JSON Schema.")


class SchemaEntry(Section):
    """A JSON Schema in the index."""

    schema_id: Name = Field(description="Unique id of the schema.")
    version: Semver = Field(description="Semantic version of the schema.")
    location: Name = Field(description="The file.")
    description: str | None = Field(None, description="What it is for.")


class RegistryChange(Section):
    """A change of the registry."""

    version: Semver = Field(description="Version of the registry that it made.")
    date: Date = Field(description="Day of the change.")
    author: str | None = Field(None, description="Who made it.")
    changes: str | None = Field(None, description="What was changed.")


class Registry(Section):
    """A registry index (index.yaml)."""

    version: Semver = Field(description="Semantic version of the index.")
    registry_metadata: RegistryMetadata | None = Field(None, description="Who the registry is.")
    active_jobs: tuple[JobEntry, ...] = Field((), description="Jobs in use.")
    draft_jobs: tuple[JobEntry, ...] = Field((), description="Jobs being written.")
    completed_jobs: tuple[JobEntry, ...] = Field((), description="Jobs that came to their end.")
    failed_jobs: tuple[JobEntry, ...] = Field((), description="Jobs that failed, kept for study.")
    templates: tuple[TemplateEntry, ...] = Field((), description="Templates for new jobs.")
    client_selectors: tuple[SelectorEntry, ...] = Field((), description="Selectors for use by many jobs.")
    rollout_policies: tuple[PolicyEntry, ...] = Field((), description="Rollout policies for many jobs.")
    schemas: tuple[SchemaEntry, ...] = Field((), description="JSON Schemas.")
    change_history: tuple[RegistryChange, ...] = Field((), description="Past changes of the index.")


@dataclass(frozen=True)
class Entry:
    """One job of a registry, with the state of the section that it stands in."""

    state: State
    job_id: str
    name: str
    version: str
    owner: str
    spec_location: str
    created_at: str
    priority: str | None
    tags: tuple[str, ...]
    ended_at: str | None
    failure_reason: str | None


def load_registry(path: Path) -> Registry:
    """Read an index file.

    Raises:
        SpecError: The file cannot be read or is no valid index.
    """
    from fedloom.specs.documents import load_document
    from fedloom.specs.kinds import parse

    return parse(load_document(path), Registry)


def entries(registry: Registry) -> list[Entry]:
    """All jobs of the registry: active, draft, completed, failed."""
    return [
        Entry(
            state=state,
            job_id=job.job_id,
            name=job.name,
            version=job.version,
            owner=job.owner,
            spec_location=job.spec_location,
            created_at=job.created_at,
            priority=job.priority,
            tags=job.tags,
            ended_at=job.completed_at or job.failed_at,
            failure_reason=job.failure_reason,
        )
        for state in STATES
        for job in _section(registry, state)
    ]


def check_registry(registry: Registry, path: Path) -> list[Finding]:
    """What in the index is not so, beyond its form: states, ids, files, dates.

    Args:
        registry: The parsed index.
        path: Its file; locations are looked for in its folder and in that folder's parent.
    """
    return [*_jobs(registry, path), *_documents(registry, path), *_dates(registry)]


def locate(location: str, path: Path) -> Path | None:
    """The file that a location in the index at path names, or None when there is none.

    Raises:
        ValueError: The location leads out of the parent of the index's folder.
    """
    folder = path.resolve().parent
    bound = folder.parent
    outside = True
    for base in (folder, bound):
        file = (base / location).resolve()
        if not file.is_relative_to(bound):
            continue
        outside = False
        if file.is_file():
            return file
    if outside:
        raise ValueError(f"{location!r} leads out of the folder {bound}")
    return None


def _section(registry: Registry, state: State) -> tuple[JobEntry, ...]:
    jobs: tuple[JobEntry, ...] = getattr(registry, f"{state}_jobs")
    return jobs


def _jobs(registry: Registry, path: Path) -> Iterator[Finding]:
    allowed = {"active": ("active", "approved"), "completed": ("completed", "archived")}
    seen: dict[str, str] = {}
    for state in STATES:
        for index, job in enumerate(_section(registry, state)):
            at: tuple[str | int, ...] = (f"{state}_jobs", index)
            if job.status not in allowed.get(state, (state,)):
                yield (
                    (*at, "status"),
                    "error",
                    f"status is {job.status!r}, but the job is listed under {state}_jobs",
                    f"move it to {job.status}_jobs or change its status",
                )
            if job.job_id in seen:
                yield (
                    (*at, "job_id"),
                    "error",
                    f"job_id {job.job_id!r} is already listed under {seen[job.job_id]}",
                    "list each job once, in the section of its present state",
                )
            seen.setdefault(job.job_id, f"{state}_jobs")
            yield from _job_file(job, state, at, path)
            yield from _job_dates(job, state, at)


def _job_file(job: JobEntry, state: State, at: tuple[str | int, ...], path: Path) -> Iterator[Finding]:
    try:
        file = locate(job.spec_location, path)
    except ValueError as error:
        yield (*at, "spec_location"), "error", str(error), "keep job files beside or below the registry"
        return
    if file is None:
        # The files of jobs that came to an end are often archived elsewhere.
        severity: Severity = "error" if state in ("active", "draft") else "warning"
        yield (
            (*at, "spec_location"),
            severity,
            f"there is no file {job.spec_location!r}",
            f"give the path relative to {path.parent} or its parent",
        )
        return
    found, trouble = _job_id(file)
    if trouble:
        yield (*at, "spec_location"), "error", f"{job.spec_location!r} {trouble}", f"fedloom validate {file}"
    elif found is not None and found.removeprefix("fl-") != job.job_id.removeprefix("fl-"):
        yield (
            (*at, "job_id"),
            "error",
            f"{job.spec_location!r} is the job {found!r}, not {job.job_id!r}",
            "correct job_id or spec_location",
        )


def _job_id(file: Path) -> tuple[str | None, str | None]:
    """The job_id in a job file of either form, or what is the matter with the file."""
    from fedloom.specs.documents import load_document
    from fedloom.specs.problems import SpecError

    try:
        data = load_document(file).data
    except SpecError:
        return None, "cannot be read as YAML"
    if not isinstance(data, dict):
        return None, "is no job file"
    metadata = data.get("job_metadata")
    holder = metadata if isinstance(metadata, dict) else data
    job_id = holder.get("job_id")
    return (job_id, None) if isinstance(job_id, str) else (None, "is no job file: it has no job_id")


def _job_dates(job: JobEntry, state: State, at: tuple[str | int, ...]) -> Iterator[Finding]:
    for key in ("completed_at", "failed_at"):
        moment: str | None = getattr(job, key)
        if moment is not None and parse_timestamp(moment) < parse_timestamp(job.created_at):
            yield (*at, key), "error", f"{key} ({moment}) is before created_at ({job.created_at})", None
    for ended, key in (("completed", "completed_at"), ("failed", "failed_at")):
        if state == ended and getattr(job, key) is None:
            yield at, "warning", f"a job under {ended}_jobs should say when, in {key}", f"add {key}"


def _documents(registry: Registry, path: Path) -> Iterator[Finding]:
    for section, key in (
        ("templates", "template_id"),
        ("client_selectors", "selector_id"),
        ("rollout_policies", "policy_id"),
        ("schemas", "schema_id"),
    ):
        seen: set[str] = set()
        for index, entry in enumerate(getattr(registry, section)):
            name: str = getattr(entry, key)
            if name in seen:
                yield (section, index, key), "error", f"{key} {name!r} is listed twice", None
            seen.add(name)
            for field in ("location", "schema_ref"):
                location = getattr(entry, field, None)
                if location is None:
                    continue
                try:
                    missing = locate(location, path) is None
                    message = f"there is no file {location!r}"
                except ValueError as error:
                    missing, message = True, str(error)
                if missing:
                    yield (section, index, field), "error", message, None


def _dates(registry: Registry) -> Iterator[Finding]:
    about = registry.registry_metadata
    if (
        about
        and about.created_at
        and about.updated_at
        and parse_timestamp(about.updated_at) < parse_timestamp(about.created_at)
    ):
        yield ("registry_metadata", "updated_at"), "error", "updated_at is before created_at", None
    days = [change.date for change in registry.change_history]
    if days not in (sorted(days), sorted(days, reverse=True)):
        yield ("change_history",), "warning", "the changes are not in the order of their dates", None
