"""The kinds of spec: how each is recognised, and the model that it is parsed into."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fedloom.specs.documents import Document
from fedloom.specs.problems import Problem, SpecError
from fedloom.specs.short_forms import REQUIRED_SECTIONS
from fedloom.specs.trails import Trail, dotted

M = TypeVar("M", bound=BaseModel)

KINDS: dict[str, tuple[str, str]] = {
    "job": ("fedloom.specs.job", "Job"),
    "selector": ("fedloom.specs.selector", "Selector"),
    "rollout": ("fedloom.specs.rollout", "Rollout"),
    "schedule": ("fedloom.specs.schedule", "Schedule"),
    "contract": ("fedloom.specs.contract", "DataContract"),
    "fleet": ("fedloom.specs.fleet", "FleetSpec"),
    "registry": ("fedloom.specs.registry", "Registry"),
    "dp_policy": ("fedloom.specs.contract_parts", "DpPolicy"),
    "constraints": ("fedloom.specs.contract_parts", "Constraints"),
    "pii_map": ("fedloom.specs.contract_parts", "PiiMap"),
    "slas": ("fedloom.specs.contract_parts", "Slas"),
}
"""Kind to the module and class of its model; imported only when a spec of the kind is read."""

_MARKERS: dict[str, str] = {
    "job_metadata": "job",
    "selector_metadata": "selector",
    "rollout_metadata": "rollout",
    "schedule_metadata": "schedule",
    "contract_metadata": "contract",
    "fleet_metadata": "fleet",
    "registry_metadata": "registry",
    "dp_metadata": "dp_policy",
    "constraints_metadata": "constraints",
    "pii_metadata": "pii_map",
    "sla_metadata": "slas",
    "job_id": "job",
    "architecture": "job",
    **dict.fromkeys(REQUIRED_SECTIONS, "job"),
    "active_jobs": "registry",
    "draft_jobs": "registry",
    "completed_jobs": "registry",
    "failed_jobs": "registry",
    "clients": "fleet",
    "clients_file": "fleet",
    "eligibility_criteria": "selector",
    "selection_algorithm": "selector",
    "schedule_type": "schedule",
    "rollback_policy": "rollout",
    "safety_gates": "rollout",
}
_MARKED = re.compile(rf"""^["']?({"|".join(_MARKERS)})["']?\s*:""", re.MULTILINE)
_KUBERNETES = re.compile(r"^(?:apiVersion:.*\S[\s\S]*^kind:|kind:.*\S[\s\S]*^apiVersion:)\s*\S", re.MULTILINE)


def is_kubernetes(text: str) -> bool:
    """Whether a file is a Kubernetes manifest, which is no spec."""
    return "apiVersion" in text and _KUBERNETES.search(text) is not None


def looks_like_spec(text: str) -> bool:
    """Whether a text, well-formed or not, has a key that only specs have."""
    return _MARKED.search(text) is not None


def kind_of(document: Document) -> str | None:
    """The kind that the keys of a document speak for, None if they speak for none."""
    if isinstance(document.data, dict):
        for marker, kind in _MARKERS.items():
            if marker in document.data:
                return kind
    return None


def detect_kind(document: Document) -> str:
    """The kind of a document.

    Raises:
        SpecError: The document is no spec.
    """
    kind = kind_of(document)
    if kind is not None:
        return kind
    if not isinstance(document.data, dict):
        message, hint = "is a list, not a spec", "a spec is a mapping, with a key such as job_id or job_metadata"
    else:
        from fedloom.specs.explain import closest

        meant = next((best for key in document.data if (best := closest(key, list(_MARKERS)))), None)
        message = "cannot tell what kind of spec this is"
        hint = (
            f"did you mean '{meant}'?"
            if meant
            else (
                "it needs the key of its kind: job_id or job_metadata, selector_metadata, rollout_metadata, "
                "schedule_metadata, contract_metadata, fleet_metadata, registry_metadata"
            )
        )
    raise SpecError([document.problem((), message, hint)])


def model_of(kind: str) -> type[BaseModel]:
    """The model of a kind."""
    module, name = KINDS[kind]
    model: type[BaseModel] = getattr(import_module(module), name)
    return model


def parse(document: Document, model: type[M], found: Sequence[Problem] = ()) -> M:
    """Check a document against its model. A job must be in its normal form; see read_spec.

    Args:
        document: The document.
        model: The model of its kind.
        found: Problems known already, to be reported with the new ones.

    Raises:
        SpecError: With all problems at once.
    """
    problems = list(found)
    parsed: M | None = None
    if not isinstance(document.data, dict):
        problems.append(document.problem((), "is a list, not a spec", "a spec is a mapping (key: value)"))
    else:
        try:
            parsed = model.model_validate(document.data)
        except ValidationError as error:
            from fedloom.specs.explain import explain

            problems += explain(error, document, model)
        problems += _not_finite(document)
    if parsed is None or problems:
        raise SpecError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return parsed


def read_spec(document: Document, kind: str | None = None) -> tuple[str, BaseModel, Document]:
    """Parse a document of any kind.

    Returns:
        The kind, the parsed spec, and the document in its normal form.

    Raises:
        SpecError: With all problems at once.
    """
    kind = kind or detect_kind(document)
    conflicts: list[Problem] = []
    if kind == "job":
        document, conflicts = normal_form(document)
    return kind, parse(document, model_of(kind), conflicts), document


def normal_form(document: Document) -> tuple[Document, list[Problem]]:
    """A job document in its canonical form, and what it says twice."""
    from fedloom.specs.normalise import normalise_job

    if not isinstance(document.data, dict):
        return document, []
    normal = normalise_job(document.data)
    conflicts = []
    for first, second in normal.conflicts:
        line, column = document.position(first)
        message = f"is given twice, also as {dotted(first)} at {line}:{column}"
        conflicts.append(document.problem(second, message, "remove one of the two"))
    return replace(document, data=normal.tree, origins=normal.origins), conflicts


def _not_finite(document: Document) -> list[Problem]:
    """Numbers that are NaN or infinite, wherever they stand."""
    found: list[Problem] = []
    stack: list[tuple[Any, Trail]] = [(document.data, ())]
    while stack:
        value, trail = stack.pop()
        if isinstance(value, dict):
            stack += [(inner, (*trail, key)) for key, inner in value.items()]
        elif isinstance(value, list):
            stack += [(inner, (*trail, index)) for index, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            found.append(document.problem(trail, f"{value} is not a finite number", "write a number"))
    return found
