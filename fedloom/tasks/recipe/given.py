"""What the steps read of updates that are given instead of trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GivenRecipe:
    """Updates that others made.

    Attributes:
        location: The folder of their index.
        most_stale: Rounds by which an update may be late; None for any number.
        exclude_stale: Whether later ones are left out, and not only marked.
    """

    location: str
    most_stale: int | None
    exclude_stale: bool
