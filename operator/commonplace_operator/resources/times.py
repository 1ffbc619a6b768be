"""Times in the form of Kubernetes' `metav1.Time`: RFC 3339, UTC, whole seconds."""

from datetime import UTC, datetime


def parse_time(text: str) -> datetime:
    """Aware UTC time of an RFC 3339 text. Raises ValueError when it is none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """`2026-11-21T01:02:03Z`; parts of a second are dropped."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
