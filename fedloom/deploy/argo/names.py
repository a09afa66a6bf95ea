"""Names that Kubernetes and Argo accept: unique and stable, never cut to a clash."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fedloom.specs.canonical import sha256

JOB_LIMIT = 52
"""Longest name of a CronWorkflow: Argo adds eleven characters for each of its workflows."""
_SUFFIX = 8


def dns_name(text: str, limit: int = JOB_LIMIT) -> str:
    """A DNS label for any text: the text itself where it is one, else with a suffix of its digest.

    Args:
        text: Any text.
        limit: Most characters.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain == text and len(text) <= limit:
        return text
    start = plain[: limit - _SUFFIX - 1].rstrip("-") or "job"
    return f"{start}-{sha256(text.encode())[:_SUFFIX]}"


def template_names(steps: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A template name for each step: Argo wants hyphens where steps have underscores.

    Args:
        steps: Names of steps.
        taken: Names that templates have already.
    """
    given: dict[str, str] = {}
    used = set(taken)
    for step in steps:
        name = step.replace("_", "-")
        if name in used:
            name = f"{name}-{sha256(step.encode())[:_SUFFIX]}"
        used.add(name)
        given[step] = name
    return given


def label_value(text: str) -> str:
    """A label value for any text, at most 63 characters."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", text):
        return text
    return dns_name(text, 63)
