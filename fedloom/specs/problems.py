"""What is wrong with a spec, where, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "not built", "warning"]
Format = Literal["text", "json", "github"]

_GITHUB_LEVEL: dict[Severity, str] = {"error": "error", "not built": "warning", "warning": "warning"}


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        severity: "error" (the spec is wrong), "not built" (the spec is right, and this version
            of fedloom refuses to run it) or "warning" (right, but look again).
        message: What is wrong, in one sentence.
        file: The file as the user named it.
        line: 1-based line, 0 when the finding concerns the whole file.
        column: 1-based column, 0 when the finding concerns the whole file.
        path: The place in the document, e.g. ``training_config.hyperparameters.mu``.
        hint: What to do about it.
    """

    severity: Severity
    message: str
    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    hint: str | None = None


class SpecError(Exception):
    """Specs that cannot be used; carries every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(render(problems, "text"))
        self.problems = tuple(problems)


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that make a spec invalid."""
    return [problem for problem in problems if problem.severity == "error"]


def render(problems: Sequence[Problem], form: Format) -> str:
    """Show problems to a person (text), a program (json) or a pull request (github)."""
    if form == "json":
        return json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False)
    line = _text if form == "text" else _github
    return "\n".join(line(problem) for problem in problems)


def _text(problem: Problem) -> str:
    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    at = f"{problem.path}: " if problem.path else ""
    hint = f"\n    hint: {problem.hint}" if problem.hint else ""
    return f"{place}: {problem.severity}: {at}{problem.message}{hint}"


def _github(problem: Problem) -> str:
    def escape(text: str, also: str = "") -> str:
        for char in "%\r\n" + also:
            text = text.replace(char, f"%{ord(char):02X}")
        return text

    place = f"file={escape(problem.file, ':,')}"
    if problem.line:
        place += f",line={problem.line},col={problem.column}"
    at = f"{problem.path}: " if problem.path else ""
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"::{_GITHUB_LEVEL[problem.severity]} {place}::{escape(at + problem.message + hint)}"
