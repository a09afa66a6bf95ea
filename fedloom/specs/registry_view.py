"""A registry for the eyes: a table of its jobs, or one of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path

from fedloom.specs.problems import Problem, SpecError
from fedloom.specs.registry import Entry, entries, load_registry

PACKAGED = Path(__file__).parent / "registry" / "index.yaml"
_COLUMNS = ("state", "job_id", "version", "owner", "name")


def list_jobs(index: Path | None, state: str | None, as_json: bool) -> str:
    """The jobs of a registry, one a line.

    Raises:
        SpecError: when the index cannot be read.
    """
    rows = [entry for entry in entries(load_registry(index or PACKAGED)) if state in (None, entry.state)]
    if as_json:
        return json.dumps([asdict(entry) for entry in rows], indent=2, ensure_ascii=False)
    if not rows:
        return "no jobs" if state is None else f"no {state} jobs"
    table = [_COLUMNS, *(tuple(str(getattr(entry, name) or "–") for name in _COLUMNS) for entry in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table)


def show_job(job_id: str, index: Path | None, as_json: bool) -> str:
    """One job of a registry.

    Raises:
        SpecError: when the index cannot be read or does not have the job.
    """
    path = index or PACKAGED
    known = {entry.job_id: entry for entry in entries(load_registry(path))}
    entry = known.get(job_id) or known.get(f"fl-{job_id}")
    if entry is None:
        close = get_close_matches(job_id, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(known) or 'no jobs'}"
        raise SpecError([Problem("error", f"the registry has no job {job_id!r}", str(path), hint=hint)])
    if as_json:
        return json.dumps(asdict(entry), indent=2, ensure_ascii=False)
    return "\n".join(f"{name:<20} {_cell(value)}" for name, value in _facts(entry))


def _facts(entry: Entry) -> list[tuple[str, object]]:
    return [(name, value) for name, value in asdict(entry).items() if value not in (None, (), "", [])]


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
