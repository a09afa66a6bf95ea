"""Calendar periods in UTC, over which participation is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def period_of(at: datetime, period: str) -> str:
    """The name of the period that a moment lies in: 2026-W48 (ISO week), 2026-11, 2026-Q4 or 2026."""
    moment = at.astimezone(UTC)
    if period == "week":
        year, week, _ = moment.isocalendar()
        return f"{year}-W{week:02d}"
    if period == "month":
        return f"{moment.year}-{moment.month:02d}"
    if period == "quarter":
        return f"{moment.year}-Q{(moment.month - 1) // 3 + 1}"
    return str(moment.year)


def next_period(at: datetime, period: str) -> datetime:
    """The moment at which the period after this one begins."""
    moment = at.astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        return midnight + timedelta(days=7 - midnight.weekday())
    first = {"month": moment.month + 1, "quarter": 3 * ((moment.month - 1) // 3) + 4, "year": 13}[period]
    years, month = divmod(first - 1, 12)
    return midnight.replace(year=moment.year + years, month=month + 1, day=1)
