"""Places in a document."""

from __future__ import annotations

Trail = tuple[str | int, ...]
"""The way from the root of a document to a value: keys and list indexes."""
Position = tuple[int, int]
"""1-based line and column."""


def dotted(trail: Trail) -> str:
    """Show a trail as people write it: ``metrics[0].name``."""
    shown = ""
    for step in trail:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}" if shown else step
    return shown
