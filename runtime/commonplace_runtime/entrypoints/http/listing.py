"""What the queries of lists have in common."""

import re
from typing import Final, cast

from commonplace_runtime.domain.redaction import redact

_WHOLE_NUMBER: Final = re.compile(r"\s*([+-]?[0-9]{1,15})")
_NAME_CHARACTERS: Final = 200


def read_limit(text: str | None, *, usual: int, most: int) -> int:
    """Between 1 and `most`, as JavaScript's parseInt reads it; what is no number is `usual`."""
    found = _WHOLE_NUMBER.match(text or "")
    return min(max(int(found[1]) if found else usual, 1), most)


def read_name(text: str | None) -> str | None:
    """
    A name or id as Postgres can compare and audit may keep it, None for an empty one.

    One that is longer than any becomes one that nothing has.
    """
    if not text:
        return None
    return cast("str", redact(text).value) if len(text) <= _NAME_CHARACTERS else "\ufffd"
