"""The answer to "are these specs good?": what is wrong with them, and what this version cannot run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedloom.flows.runnable import not_runnable
from fedloom.flows.support import not_built
from fedloom.specs.bundle import resolve_job
from fedloom.specs.dump import dump_yaml
from fedloom.specs.problems import Format, Problem, SpecError, errors, render
from fedloom.specs.validate import Validation, discover, validate_paths


@dataclass(frozen=True)
class Report:
    """A validation, with the features that are not built among its problems.

    Attributes:
        checked: The validation of the specs.
        problems: All findings.
        skipped: Files below a folder that are no specs, each with the reason.
    """

    checked: Validation
    problems: tuple[Problem, ...]
    skipped: tuple[tuple[Path, str], ...]

    @property
    def valid(self) -> bool:
        """Whether no spec has an error; what is not built yet is refused when the job is planned or run."""
        return not errors(self.problems)


def check(paths: Sequence[Path], everything: bool, schema: str | None) -> Report:
    """Validate files, job folders, packaged examples, or (everything) all specs below folders.

    Raises:
        SpecError: when a path is not there.
        KeyError: when there is no such schema.
    """
    found: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    for path in paths:
        if everything and path.is_dir():
            below = discover(path)
            found += below.paths
            skipped += below.skipped
        else:
            found.append(resolve_job(str(path)))
    if everything and not found:
        raise SpecError([Problem("error", "there are no specs below this folder", str(paths[0]))])
    checked = validate_paths(found, schema)
    unbuilt = [problem for bundle in checked.bundles for problem in not_built(bundle)]
    lacking = [
        replace(problem, severity="warning", message=f"{problem.message}; the job cannot run as it is")
        for bundle in checked.bundles
        for problem in not_runnable(bundle)
    ]
    return Report(checked, (*checked.problems, *unbuilt, *lacking), tuple(skipped))


def as_text(report: Report, form: Format, show: bool) -> str:
    """The report for a person, a program (with the normal forms, if they are to be shown) or a pull request."""
    if form == "json":
        shown = {
            "valid": report.valid,
            "files": report.checked.files,
            "skipped": [{"file": str(path), "reason": reason} for path, reason in report.skipped],
            "problems": [asdict(problem) for problem in report.problems],
        }
        forms = {"normal_forms": report.checked.normal_forms} if show else {}
        return json.dumps(shown | forms, indent=2, ensure_ascii=False)
    parts = [render(report.problems, form)] if report.problems else []
    if form == "text":
        parts += [f"{path}: skipped: {reason}" for path, reason in report.skipped]
        parts.append(_verdict(report))
    return "\n".join(parts)


def normal_forms(report: Report) -> str:
    """The normal form of every valid spec, as YAML documents."""
    forms = report.checked.normal_forms
    return "".join(f"---\n# {file}\n{dump_yaml(data)}" for file, data in forms.items())


def _verdict(report: Report) -> str:
    counts = {
        severity: sum(problem.severity == severity for problem in report.problems)
        for severity in ("error", "not built", "warning")
    }
    found = ", ".join(
        f"{count} {name}{'s' * (count > 1 and name != 'not built')}" for name, count in counts.items() if count
    )
    files = f"{len(report.checked.files)} file{'s' * (len(report.checked.files) != 1)}"
    return f"{'valid' if report.valid else 'invalid'}: {files}{', ' + found if found else ''}"
