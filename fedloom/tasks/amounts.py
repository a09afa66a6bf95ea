"""Bytes for people."""

from __future__ import annotations

_UNITS = ("B", "KB", "MB", "GB", "TB")


def amount(value: float | None) -> str:
    """Bytes in the unit that fits."""
    if value is None:
        return "–"
    size, unit = float(value), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
