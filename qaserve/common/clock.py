"""The time, as records keep it."""

from datetime import UTC, datetime


def now() -> str:
    """The present in UTC, ISO 8601 with microseconds, so that texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
