"""Instants as the tables have them: ISO 8601 in UTC with milliseconds, such as 2026-03-01T09:30:00.125Z."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """This instant, for a cell of a table."""
    return as_text(datetime.now(UTC))


def as_text(instant: datetime) -> str:
    """An instant with a time zone, for a cell of a table."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: object) -> datetime | None:
    """The instant that a cell has, in UTC; None for an empty cell, as older tables have it.

    Raises:
        ValueError: text that is no instant, or that does not say its time zone.
    """
    if not isinstance(text, str) or not text:
        return None
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text[:80]!r} has no time zone")
    return instant.astimezone(UTC)
