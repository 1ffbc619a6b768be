"""Moments as clients write them into a query: what JavaScript's `Date` reads, not ISO 8601 alone."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

_LONGEST: Final = 100
"""Characters; what `Date` itself writes is shorter."""
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONES: Final = {
    **dict.fromkeys(("", "z", "utc", "ut", "gmt"), 0),
    "est": -5,
    "edt": -4,
    "cst": -6,
    "cdt": -5,
    "mst": -7,
    "mdt": -6,
    "pst": -8,
    "pdt": -7,
}
"""Hours east of UTC. A moment that names no zone is one of the server's, which is UTC."""

_WEEKDAY: Final = r"(?:(?:sun|mon|tue|wed|thu|fri|sat)[a-z]*\.?,?\s+)?"
_MONTH: Final = rf"(?P<name>{'|'.join(_MONTHS)})[a-z]*\.?"
_DATES: Final = (
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?)?",
    r"(?P<year>\d{4})/(?P<month>\d{1,2})/(?P<day>\d{1,2})",
    r"(?P<month>\d{1,2})[/-](?P<day>\d{1,2})[/-](?P<year>\d{4}|\d\d)",
    rf"{_WEEKDAY}{_MONTH}(?:\s+(?P<day>\d{{1,2}}))?(?:\s*,\s*|\s+)(?P<year>\d{{4}})",
    rf"{_WEEKDAY}(?P<day>\d{{1,2}})[\s-]+{_MONTH}[\s,-]+(?P<year>\d{{4}})",
)
_TIME: Final = (
    r"(?:t|,?\s+(?:at\s+)?)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?"
    r"(?:\s*(?P<half>[ap])m)?"
)
_OFFSET: Final = r"(?P<sign>[+-])(?P<east_hours>\d\d):?(?P<east_minutes>\d\d)"
_FORMS: Final = tuple(
    re.compile(
        rf"{date}(?:{_TIME}(?:\s*(?P<zone>[a-z]+)?\s*(?:{_OFFSET})?)|\s+(?P<bare_zone>[a-z]+))?(?:\s*\([^()]*\))?",
        re.ASCII,
    )
    for date in _DATES
)


def read_date(text: str) -> datetime | None:
    """
    The moment, in UTC, that `text` names as JavaScript's `Date` would read it; None where it names none.

    ISO 8601 from the year alone down to fractions of a second, `Nov 21, 2026`, `21 November 2026 10:30`,
    `11/21/2026, 9:05:00 AM`, `2026/11/21`, and what `toString`, `toUTCString` and mail headers look like.
    """
    text = text.strip().lower()
    if len(text) > _LONGEST:
        return None
    for form in _FORMS:
        if found := form.fullmatch(text):
            try:
                return _moment(found.groupdict(default=""))
            except (ValueError, OverflowError, KeyError):
                return None
    return None


def _moment(part: Mapping[str, str]) -> datetime:
    """Raises ValueError and OverflowError for what no calendar or clock has, KeyError for an unknown zone."""
    month = _MONTHS.index(part["name"]) + 1 if part.get("name") else int(part.get("month") or 1)
    midnight = datetime(_year(part["year"]), month, int(part["day"] or 1), tzinfo=_zone(part))
    return (midnight + _time_of_day(part)).astimezone(UTC)


def _year(digits: str) -> int:
    year = int(digits)
    if len(digits) == 4:
        return year
    return year + (2000 if year < 50 else 1900)


def _zone(part: Mapping[str, str]) -> timezone:
    hours = _ZONES[part["zone"] or part["bare_zone"]]
    east = timedelta(hours=int(part["east_hours"] or 0), minutes=int(part["east_minutes"] or 0))
    return timezone(timedelta(hours=hours) + (-east if part["sign"] == "-" else east))


def _time_of_day(part: Mapping[str, str]) -> timedelta:
    hour, minute, second = (int(part[name] or 0) for name in ("hour", "minute", "second"))
    if part["half"]:
        if not 1 <= hour <= 12:
            raise ValueError("no hour of a half day")
        hour = hour % 12 + (12 if part["half"] == "p" else 0)
    if minute > 59 or second > 59 or hour > 24 or (hour == 24 and (minute or second)):
        raise ValueError("no time of a day")
    return timedelta(hours=hour, minutes=minute, seconds=second, microseconds=int(part["fraction"][:6].ljust(6, "0")))
