"""
Cuts out what stands between privacy tags: `<private>…</private>` and the wrappers that agents add to a prompt.

The text is read once, from angle bracket to angle bracket, and tags are recognised in what is left over so
far. So a tag that only appears when another one is cut out of its middle is seen too, and cleaning twice
changes nothing.
"""

import re
from dataclasses import dataclass
from typing import Final

TAGS: Final = (
    "private",
    "claude-mem-context",
    "system_instruction",
    "system-instruction",
    "persisted-output",
    "system-reminder",
)
_TO_THE_END: Final = "private"
"""The one tag that, left open, hides all that follows. The others are also talked about, so they need their end."""

_HINT: Final = re.compile("|".join(TAGS), re.IGNORECASE)
_BRACKET: Final = re.compile("([<>])")
_TAG: Final = re.compile(rf"<(/?)({'|'.join(TAGS)})((?:\s[^<>]*)?)>", re.IGNORECASE)
_LONGEST_TAG: Final = 300
_DEEPEST: Final = 1000


@dataclass(frozen=True, kw_only=True)
class _Opening:
    name: str
    start: int
    bracket_before: int | None


def strip_private(text: str) -> tuple[str, int]:
    """`text` without private parts, and how many there were. Tags nest, may carry attributes, in either case."""
    if ("<" not in text) or _HINT.search(text) is None:
        return text, 0
    left: list[str] = []
    opened: list[_Opening] = []
    bracket: int | None = None
    parts = 0
    for piece in filter(None, _BRACKET.split(text)):
        left.append(piece)
        if piece == "<":
            bracket = len(left) - 1
        elif piece == ">" and bracket is not None:
            tag, start, bracket = _tag(left, bracket), bracket, None
            if tag is None or tag[3].rstrip().endswith("/"):
                continue
            name = tag[2].lower()
            if not tag[1]:
                opened.append(_Opening(name=name, start=start, bracket_before=_pending(left, start)))
            elif (place := _matching(opened, name)) is not None:
                bracket = opened[place].bracket_before
                del left[opened[place].start :]
                del opened[place:]
                parts += 1
    unclosed = next((opening.start for opening in opened if opening.name == _TO_THE_END), None)
    if unclosed is not None:
        del left[unclosed:]
        parts += 1
    return ("".join(left), parts) if parts else (text, 0)


def _tag(left: list[str], start: int) -> re.Match[str] | None:
    length = 0
    for place in range(start, len(left)):
        length += len(left[place])
        if length > _LONGEST_TAG:
            return None
    return _TAG.fullmatch("".join(left[start:]))


def _pending(left: list[str], start: int) -> int | None:
    """Where an unfinished tag was begun before `start`: the last bracket, if it is an opening one."""
    for place in range(start - 1, max(-1, start - _LONGEST_TAG), -1):
        if left[place] == "<":
            return place
        if left[place] == ">":
            return None
    return None


def _matching(opened: list[_Opening], name: str) -> int | None:
    """The innermost opening of that name, among the last few: so many closings cannot make the search quadratic."""
    for place in range(len(opened) - 1, max(-1, len(opened) - 1 - _DEEPEST), -1):
        if opened[place].name == name:
            return place
    return None
