"""How long runs are kept, and what else keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from fedloom.specs.fields import parse_duration
from fedloom.specs.registry import State as Section
from fedloom.tasks.reporting.records import State

Kind = Literal["active", "completed", "failed", "experimental"]

PERIODS: Mapping[Kind, timedelta | None] = {
    "active": None,
    "completed": timedelta(days=730),
    "experimental": timedelta(days=365),
    "failed": timedelta(days=183),
}
"""Time from a run's last write to its removal; None: it is kept."""
SHORTEST = min(period for period in PERIODS.values() if period is not None)
_YEARS = re.compile(r"(\d+(?:\.\d+)?)\s*(year|month)s?")
_DAYS = {"year": 365.25, "month": 30.5}


@dataclass(frozen=True)
class Term:
    """How long a run is kept.

    Attributes:
        kind: What it counts as.
        until: When its time is over; None: never.
        reason: Why it counts as that, in words.
    """

    kind: Kind
    until: datetime | None
    reason: str


def term(
    state: State, baseline: bool, section: Section | None, known: bool, audit: str | None, written: datetime
) -> Term:
    """How long a run is kept.

    Args:
        state: How it stands.
        baseline: It left out the privacy that its job promises.
        section: Where the registry lists its job; None where it does not.
        known: Whether there is a registry at all.
        audit: The job's ``retention_period`` of the audit trail, which a run is kept for at least; None for none.
        written: When it last wrote.
    """
    kind, reason = _kind(state, baseline, section, known)
    period = PERIODS[kind]
    if period is None:
        return Term(kind, None, reason)
    if audit is not None:
        own = audit_period(audit)
        if own is None:
            return Term(kind, None, f"the job's retention_period {audit!r} is no duration that could be counted")
        if own > period:
            period, reason = own, f"{reason}; the job's retention_period is {audit}"
    return Term(kind, written + period, reason)


def _kind(state: State, baseline: bool, section: Section | None, known: bool) -> tuple[Kind, str]:
    if state == "running":
        return "active", "it is running"
    if state == "failed":
        return "failed", "it failed"
    if state == "unknown":
        return "failed", "it was stopped and never continued"
    if baseline:
        return "experimental", "it is a baseline"
    if not known:
        return "active", "no registry says what became of its job"
    if section is None:
        return "experimental", "the registry does not list its job"
    kinds: Mapping[Section, Kind] = {
        "active": "active", "draft": "experimental", "completed": "completed", "failed": "failed",
    }  # fmt: skip
    return kinds[section], f"the registry lists its job as {section}"


def audit_period(text: str) -> timedelta | None:
    """A duration such as ``5 years`` or ``90 days``; None when it is none."""
    if found := _YEARS.fullmatch(text.strip().lower()):
        return timedelta(days=float(found[1]) * _DAYS[found[2]])
    try:
        return parse_duration(text)
    except (ValueError, OverflowError):
        return None


def audit_of(about: Mapping[str, Any]) -> str | None:
    """The job's ``retention_period``, from the words that a run keeps of its job."""
    compliance = about.get("compliance") or {}
    found = compliance.get("retention_period")
    return None if found is None else str(found)
