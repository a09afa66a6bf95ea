"""Waiting for clients: a new period, in which they may take part again, is all that time brings to a run."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from fedloom.tasks.selection.periods import next_period
from fedloom.tasks.selection.tally import Tally, rolled


def new_period(tally: Tally, now: datetime, minutes: int) -> datetime | None:
    """The beginning of the next period, when it comes within so many minutes; it may have come already."""
    assert tally.period is not None, "a recipe that waits counts by period"
    begins = next_period(datetime.fromisoformat(tally.at), tally.period)
    return begins if begins - now <= timedelta(minutes=minutes) else None


def wait_for(tally: Tally, minutes: int) -> Tally | None:
    """The tally at the beginning of the next period, waited for; None when that does not begin soon enough."""
    now = datetime.now(UTC)
    begins = new_period(tally, now, minutes)
    if begins is None:
        return None
    time.sleep(max(0.0, (begins - now).total_seconds()))
    return rolled(tally, begins)
