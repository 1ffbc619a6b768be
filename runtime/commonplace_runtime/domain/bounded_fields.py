"""Reads the bounded texts, lists, fractions and moments of a body; what is wrong becomes an issue, as in `Fields`."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from commonplace_runtime.domain.events import LATEST_EPOCH_MS
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.moments import read_date
from commonplace_runtime.domain.validation import Fields, Issue, type_name, wrong_type

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_EPOCH_MS: Final = -62_135_596_800_000
"""The beginning of the year 1."""


def distinct(words: Sequence[str]) -> Sequence[str]:
    """The different words that are not blank, in order."""
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))


def read_moment(value: Json) -> datetime | None:
    """Epoch milliseconds, or a text that JavaScript's `Date` reads; None for anything else, years past 9999 too."""
    if isinstance(value, str):
        return read_date(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if not _EARLIEST_EPOCH_MS <= value <= LATEST_EPOCH_MS:
        return None
    return _EPOCH + timedelta(milliseconds=int(value))


def no_moment(path: Sequence[str | int]) -> Issue:
    """The issue for what `read_moment` cannot read."""
    message = "Invalid date: expected ISO 8601 or epoch milliseconds, within the years 1 to 9999"
    return {"code": "invalid_format", "format": "datetime", "path": list(path), "message": message}


class BoundedFields(Fields):
    """The fields of one object, within bounds."""

    def plain(self, name: str) -> str | None:
        """A text; an empty one is none."""
        value = self.value(name)
        if value is None or isinstance(value, str):
            return value or None
        self._add(wrong_type((*self._path, name), "string", type_name(value)))
        return None

    def bounded(self, name: str, most: int, *, least: int = 0) -> str | None:
        """A text of at most `most` characters."""
        value = self.text(name) if least else self.plain(name)
        if value is not None and len(value) > most:
            message = f"Too big: expected string to have <={most} characters"
            self._bound(name, "too_big", "string", "maximum", most, message)
            return None
        return value

    def strings(self, name: str, most: int, longest: int | None = None) -> Sequence[str]:
        """A list of texts."""
        value = self.value(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self._add(wrong_type((*self._path, name), "array", type_name(value)))
            return ()
        if len(value) > most:
            message = f"Too big: expected array to have <={most} items"
            self._bound(name, "too_big", "array", "maximum", most, message)
            return ()
        for place, item in enumerate(value):
            path = (*self._path, name, place)
            if not isinstance(item, str):
                self._add(wrong_type(path, "string", type_name(item)))
            elif longest is not None and len(item) > longest:
                message = f"Too big: expected string to have <={longest} characters"
                self._add(
                    {"origin": "string", "code": "too_big", "maximum": longest, "path": list(path), "message": message}
                )
        return [item for item in value if isinstance(item, str)]

    def words(self, name: str, most: int, longest: int) -> Sequence[str]:
        """A list of different short texts, blank ones left out."""
        return distinct(self.strings(name, most, longest))

    def fraction(self, name: str) -> float | None:
        """A number from 0 to 1; True is none."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            received = "nan" if isinstance(value, float) else type_name(value)
            self._add(wrong_type((*self._path, name), "number", received))
            return None
        if value < 0:
            self._bound(name, "too_small", "number", "minimum", 0, "Too small: expected number to be >=0")
        elif value > 1:
            self._bound(name, "too_big", "number", "maximum", 1, "Too big: expected number to be <=1")
        return float(value) if 0 <= value <= 1 else None

    def moment(self, name: str) -> datetime | None:
        """A date, or epoch milliseconds."""
        value = self.value(name)
        moment = read_moment(value)
        if value is not None and moment is None:
            self._add(no_moment((*self._path, name)))
        return moment
