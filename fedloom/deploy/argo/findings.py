"""What a linter finds in one manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedloom.specs.documents import Document
from fedloom.specs.problems import Problem
from fedloom.specs.trails import Trail

Data = dict[str, Any]


@dataclass
class Findings:
    """The problems of a manifest.

    Attributes:
        document: The manifest.
        version: Argo that reads it, "3.7" or "4".
        problems: What was found.
    """

    document: Document
    version: str
    problems: list[Problem] = field(default_factory=list)

    def error(self, trail: Trail, message: str, hint: str | None = None) -> None:
        """What Argo or Kubernetes refuses, or what breaks a run."""
        self.problems.append(self.document.problem(trail, message, hint))

    def warning(self, trail: Trail, message: str, hint: str | None = None) -> None:
        """What works, and should be looked at."""
        self.problems.append(self.document.problem(trail, message, hint, "warning"))


def section(data: Any, *path: str) -> Data:
    """A mapping below a mapping; empty where there is none."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def items(data: Any, *path: str) -> list[Any]:
    """A list below a mapping; empty where there is none."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, list) else []


def parameter_names(data: Any, *path: str) -> dict[str, Data]:
    """Parameters by name."""
    return {str(each.get("name")): each for each in items(data, *path, "parameters") if isinstance(each, dict)}
