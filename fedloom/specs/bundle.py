"""A job with everything that belongs to it: selector, rollout, schedule, contract, fleet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedloom.specs.contract_lookup import find_contract
from fedloom.specs.documents import Document, load_document
from fedloom.specs.kinds import kind_of, read_spec
from fedloom.specs.problems import Problem, Severity, SpecError, errors
from fedloom.specs.trails import Trail, dotted

if TYPE_CHECKING:
    from fedloom.specs.contract import DataContract
    from fedloom.specs.fleet import Fleet
    from fedloom.specs.job import Job
    from fedloom.specs.rollout import Rollout
    from fedloom.specs.schedule import Schedule
    from fedloom.specs.selector import Selector

FILES: dict[str, tuple[str, ...]] = {
    "job": ("job.yaml", "job.yml"),
    "selector": ("selector.yaml", "selector.yml"),
    "rollout": ("rollout.yaml", "rollout.yml"),
    "schedule": ("schedule.yaml", "schedule.yml"),
    "contract": ("contract.yaml", "contract.yml", "data_contract.yaml"),
    "fleet": ("fleet.yaml", "fleet.yml", "fleet.csv", "fleet.parquet"),
}
"""The names of a job folder's files; of several for one kind, the first that is there counts."""

TABLES = (".csv", ".parquet")
EXAMPLES = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class JobBundle:
    """A checked job and its companions; what the folder does not have is None.

    Attributes:
        folder: The job folder.
        job: The job in canonical form.
        selector: Which clients may take part.
        rollout: How the model is released.
        schedule: When the job is launched.
        contract: The data contract that the job reads.
        contract_path: Its file.
        fleet: The roster of clients.
        documents: By kind, the file in normal form, for the positions of problems.
        warnings: Findings that do not keep the job from running.
    """

    folder: Path
    job: Job
    selector: Selector | None = None
    rollout: Rollout | None = None
    schedule: Schedule | None = None
    contract: DataContract | None = None
    contract_path: Path | None = None
    fleet: Fleet | None = None
    documents: Mapping[str, Document] = field(default_factory=dict, repr=False)
    warnings: tuple[Problem, ...] = ()

    def problem(self, kind: str, path: Trail, severity: Severity, message: str, hint: str | None = None) -> Problem:
        """A problem with the value at a canonical place of one of the bundle's files."""
        document = self.documents.get(kind)
        if document is None:
            return Problem(severity, message, str(self.folder), path=dotted(path), hint=hint)
        return document.problem(path, message, hint, severity)


class IncompleteJobError(SpecError):
    """A job with errors around it, such as a missing contract, that could still be read.

    Attributes:
        bundle: What was read.
    """

    def __init__(self, problems: list[Problem], bundle: JobBundle) -> None:
        super().__init__(problems)
        self.bundle = bundle


def load_job(path: Path) -> JobBundle:
    """Load a job folder, or a job file with the companions in its folder.

    Args:
        path: A job folder, or a job file in it.

    Raises:
        SpecError: With all problems of all files.
    """
    path = Path(path)
    files = job_files(path)
    documents: dict[str, Document] = {}
    problems: list[Problem] = []
    for kind, file in files.items():
        if file.suffix in TABLES:
            continue
        try:
            documents[kind] = load_document(file)
        except SpecError as error:
            problems += error.problems
    table = files.get("fleet")
    if table is not None and table.suffix not in TABLES:
        table = None
    return _assemble(documents, path if path.is_dir() else path.parent, problems, table)


def bundle_from_documents(documents: Mapping[str, Any], folder: Path) -> JobBundle:
    """Make a bundle of specs that are plain data already, as a job written in Python has them.

    Args:
        documents: By kind (job, selector, rollout, schedule, contract, fleet), plain data or Document.
        folder: The folder that relative paths in them start from.

    Raises:
        SpecError: With all problems of all documents.
    """
    wrapped = {
        kind: data if isinstance(data, Document) else Document(f"<{kind}>", data) for kind, data in documents.items()
    }
    return _assemble(wrapped, folder, [], None)


def resolve_job(name: str) -> Path:
    """The job that a user names: a path, or the name of a packaged example.

    Raises:
        SpecError: There is neither.
    """
    path = Path(name)
    try:
        if path.exists():
            return path
    except (OSError, ValueError):
        pass
    examples = example_names()
    if name in examples:
        return EXAMPLES / name
    from fedloom.specs.explain import closest

    near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    best = closest(path.name, [*examples, *near])
    hint = f"did you mean '{best}'?" if best else f"packaged examples: {', '.join(examples)}"
    raise SpecError([Problem("error", "there is no such job folder, file or example", name, hint=hint)])


def example_names() -> tuple[str, ...]:
    """The names of the packaged examples."""
    return tuple(sorted(path.parent.name for path in EXAMPLES.glob("*/job.yaml")))


def job_file(folder: Path) -> Path | None:
    """The job file of a folder, None if it has none."""
    return next((folder / name for name in FILES["job"] if os.path.lexists(folder / name)), None)


def job_files(path: Path) -> dict[str, Path]:
    """The files of a job by kind.

    Raises:
        SpecError: The folder has no job file.
    """
    if not path.is_dir():
        folder, files = path.parent, {"job": path}
        if path.name not in FILES["job"] and job_file(folder) is not None:
            return files  # The companions belong to the other job.
    else:
        folder, file = path, job_file(path)
        if file is None:
            hint = "a job folder has a job.yaml; make one with: fedloom init NAME"
            raise SpecError([Problem("error", "there is no job.yaml in this folder", str(path), hint=hint)])
        files = {"job": file}
    for kind, names in FILES.items():
        found = next((folder / name for name in names if os.path.lexists(folder / name)), None)
        if found is not None and kind not in files:
            files[kind] = found
    return files


def _assemble(
    documents: Mapping[str, Document], folder: Path, problems: list[Problem], table: Path | None
) -> JobBundle:
    parts: dict[str, Any] = {}
    normal: dict[str, Document] = {}
    for kind, document in documents.items():
        try:
            other = kind_of(document)
            if other not in (None, kind):
                raise SpecError([document.problem((), f"is a {other} spec, a {kind} spec is expected here")])
            _, parts[kind], normal[kind] = read_spec(document, kind)
        except SpecError as error:
            problems += error.problems
    fleet = _fleet(parts.pop("fleet", None), normal.get("fleet"), folder, table, problems)
    job = parts.get("job")
    if job is None:
        if not problems:
            problems.append(Problem("error", "there is no job among the specs", str(folder)))
        raise SpecError(problems)
    contract_path = None
    if job.model.input_schema.reference is not None:
        contract_path = _referenced_contract(job, folder, parts, normal, problems)
    elif "contract" in normal:
        contract_path = folder / Path(normal["contract"].file).name
    bundle = JobBundle(folder=folder, fleet=fleet, contract_path=contract_path, documents=normal, **parts)
    return _checked(bundle, problems)


def _fleet(
    spec: Any, document: Document | None, folder: Path, table: Path | None, problems: list[Problem]
) -> Fleet | None:
    if spec is None and table is None:
        return None
    from fedloom.specs.fleet import fleet_of, load_fleet

    try:
        return load_fleet(table) if table is not None else fleet_of(spec, document or Document("", {}), folder)
    except SpecError as error:
        problems += error.problems
        return None


def _referenced_contract(
    job: Job, folder: Path, parts: dict[str, Any], normal: dict[str, Document], problems: list[Problem]
) -> Path | None:
    """The contract that the job names; one in the job folder counts when it is the one named."""
    reference = job.model.input_schema.reference or ""
    place = normal["job"].problem(("model_config", "input_schema", "reference"), "")
    own = parts.pop("contract", None)
    own_document = normal.pop("contract", None)
    if own is not None and own_document is not None:
        metadata = own.contract_metadata
        own_path = folder / Path(own_document.file).name
        if reference in (f"{metadata.contract_id}:{metadata.version}", own_path.name, f"./{own_path.name}"):
            parts["contract"], normal["contract"] = own, own_document
            return own_path
    try:
        path = find_contract(reference, folder)
        document = load_document(path)
        _, parts["contract"], normal["contract"] = read_spec(document, "contract")
    except LookupError as error:
        message, hint = error.args
        problems.append(replace(place, message=message, hint=hint))
        return None
    except SpecError as error:
        problems += error.problems
        return None
    return path


def _checked(bundle: JobBundle, problems: list[Problem]) -> JobBundle:
    from fedloom.specs.checks import check_bundle

    problems = [*problems, *check_bundle(bundle)]
    if errors(problems):
        raise IncompleteJobError(problems, bundle)
    return replace(bundle, warnings=tuple(problems))
