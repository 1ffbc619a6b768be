"""
What must never be stored, taken out of a JSON value: private parts go, secrets become `[redacted:<pattern>]`.

Every string is cleaned, keys included, also inside strings that are JSON themselves. Each is cleaned until nothing
changes any more, for taking one thing out may turn the rest into JSON, a tag or a secret; so the result can be
cleaned again without changing. The time is linear in the size: a pattern either takes what it looked at, or cannot
start again inside it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.private_tags import has_tag_name, strip_private
from commonplace_runtime.domain.secret_patterns import (
    has_secret_hint,
    is_secret_field,
    is_secret_value,
    replace_secrets,
)

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_NESTED_LEVELS: Final = 4
"""How often JSON may stand inside a string inside JSON; each level doubles the escapes, so real ones stop at two."""
_DEPTH: Final = 250
_ROUNDS: Final = 6
"""How often one string is cleaned. Two are usual; what needs more was made to get through."""
_GIVEN_UP: Final = "[redacted:unreadable]"
_SHORTEST_JSON: Final = 6


@dataclass(frozen=True, kw_only=True)
class Redacted:
    """A value that may be stored. `private_parts`: how many were cut out. `secrets`: replaced ones by pattern."""

    value: Json
    private_parts: int
    secrets: Mapping[str, int]


@dataclass(kw_only=True)
class _Tally:
    private_parts: int = 0
    secrets: dict[str, int] = field(default_factory=dict)


def redact(value: Json) -> Redacted:
    """`value` without private parts, secrets, and the characters that Postgres cannot hold. Never raises."""
    return unchanged(value) if is_clean(value) else redact_closely(value)


def redact_closely(value: Json) -> Redacted:
    """What `redact` gives, each text looked at in turn."""
    tally = _Tally()
    clean = _clean(value, tally, _NESTED_LEVELS, _DEPTH)
    return Redacted(value=clean, private_parts=tally.private_parts, secrets=tally.secrets)


def unchanged(value: Json) -> Redacted:
    """What `redact` gives for a value that is clean."""
    return Redacted(value=value, private_parts=0, secrets={})


def is_clean(value: Json) -> bool:
    """
    Whether `redact` leaves `value` as it is. A quick look at all of its texts at once: True only where that is sure.

    What no hint stands in needs no pattern. A string that may be JSON is always looked at closely: it has fields of
    its own, and escapes may spell a hint.
    """
    texts: list[str] = []
    if not _gather(value, texts, _DEPTH):
        return False
    joined = "\n".join(texts)
    if "\x00" in joined or not (joined.isascii() or _UNSTORABLE.search(joined) is None):
        return False
    if ("{" in joined or "[" in joined) and any(_may_be_json(text) for text in texts):
        return False
    folded = joined.lower()
    return not has_secret_hint(joined, folded) and not has_tag_name(folded)


def _gather(value: Json, texts: list[str], depth: int) -> bool:
    """Add the texts of `value`, keys included; False for one that is to be looked at closely."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        if depth <= 0:
            return False
        for name, item in value.items():
            if is_secret_field(name) or not _gather(item, texts, depth - 1):
                return False
        texts.extend(value)
    elif isinstance(value, list):
        if depth <= 0:
            return False
        for item in value:
            if not _gather(item, texts, depth - 1):
                return False
    return True


def _clean(value: Json, tally: _Tally, levels: int, depth: int) -> Json:
    if isinstance(value, str):
        return _clean_text(value, tally, levels)
    if depth <= 0:
        return value if not isinstance(value, dict | list) else None
    if isinstance(value, list):
        return [_clean(item, tally, levels, depth - 1) for item in value]
    if isinstance(value, dict):
        return _clean_object(value, tally, levels, depth)
    return value


def _clean_object(value: dict[str, Json], tally: _Tally, levels: int, depth: int) -> dict[str, Json]:
    clean: dict[str, Json] = {}
    copies: dict[str, int] = {}
    for key, item in value.items():
        name = _clean_text(key, tally, 0)
        # Two keys that differ only in what was taken out must not swallow each other's values.
        free = name
        while free in clean:
            copies[name] = copies.get(name, 1) + 1
            free = f"{name}#{copies[name]}"
        kept = _clean(item, tally, levels, depth - 1)
        clean[free] = _without_secrets(kept, tally) if is_secret_field(name) else kept
    return clean


def _without_secrets(value: Json, tally: _Tally) -> Json:
    """What stands under a secret's name, in lists too."""
    if isinstance(value, list):
        return [_without_secrets(item, tally) for item in value]
    if is_secret_value(value):
        tally.secrets["field"] = tally.secrets.get("field", 0) + 1
        return "[redacted:field]"
    return value


def _clean_text(text: str, tally: _Tally, levels: int) -> str:
    if not text.isascii() or "\x00" in text:
        text = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    for _ in range(_ROUNDS):
        before = text
        if levels > 0 and _may_be_json(text):
            text = _clean_nested(text, tally, levels)
        text, parts = strip_private(text)
        tally.private_parts += parts
        text = replace_secrets(text, tally.secrets)
        if text == before:
            return text
    return _GIVEN_UP


def _may_be_json(text: str) -> bool:
    return len(text) >= _SHORTEST_JSON and text.lstrip()[:1] in ("{", "[")


def _clean_nested(text: str, tally: _Tally, levels: int) -> str:
    """A string that is a JSON object or list, cleaned inside; anything else, and what is clean, as it was."""
    try:
        inner: Json = json.loads(text)
        before = (tally.private_parts, sum(tally.secrets.values()))
        clean = _clean(inner, tally, levels - 1, _DEPTH)
        if before == (tally.private_parts, sum(tally.secrets.values())) and clean == inner:
            return text
        return json.dumps(clean, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
