"""
Where a list goes on: an opaque text that says which row was the last.

It carries no right: whoever makes one up still sees only rows that the key reaches.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Final

from commonplace_runtime.domain.validation import InvalidFields, Issue

_LONGEST: Final = 2000
"""Characters; a name of 200 that JSON escapes takes 1,600."""


def write_cursor(*place: str | int) -> str:
    """`place` as a text that fits into a URL."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def read_cursor(text: str, kinds: Sequence[type[str] | type[int]]) -> list[str | int]:
    """What `write_cursor` was given, of these `kinds`. Raises InvalidFields for anything else."""
    try:
        place = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        place = None
    if len(text) > _LONGEST or not isinstance(place, list) or [type(part) for part in place] != list(kinds):
        raise InvalidFields([invalid_cursor()])
    return place


def invalid_cursor() -> Issue:
    """The issue for a cursor that no list has handed out."""
    return {"code": "invalid_format", "format": "cursor", "path": ["cursor"], "message": "Invalid cursor"}
