"""What the steps read of updates that are given instead of trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GivenRecipe:
    """Updates that others made.

    Attributes:
        location: The folder of their index, in the job's folder or a URL.
    """

    location: str
