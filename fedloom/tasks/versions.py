"""The version that a model gets when it is released."""

from __future__ import annotations


def next_version(own: str, before: str | None, part: str | None) -> str:
    """The version of a model that takes the place of another.

    Args:
        own: What the job calls its model, "major.minor.patch".
        before: Version of the model before; None where there is none.
        part: The part that grows: "major", "minor" or "patch"; None for none.

    Returns:
        The version before with its part grown, or the job's own where that is later.
    """
    if part is None or before is None:
        return own
    numbers = _numbers(before)
    at = ("major", "minor", "patch").index(part)
    grown = (*numbers[:at], numbers[at] + 1, *(0 for _ in numbers[at + 1 :]))
    return ".".join(map(str, max(grown, _numbers(own))))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
