"""
Cuts out what stands between privacy tags: `<private>…</private>` and the wrappers that agents add to a prompt.

The text is read once, from angle bracket to angle bracket, and tags are recognised in what is left over so
far. So a tag that only appears when another one is cut out of its middle is seen too. Brackets count in the
spellings that JSON and HTML give them (`\\u003c`, `&lt;`) as well, for such text is often unpacked later.
"""

import re
from collections.abc import Iterator
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

_BRACKET: Final = re.compile(
    r"(<|(?<!\\)\\++(?:u003c|x3c)|&(?:amp;)*(?:lt|#0*60|#x0*3c);)|(>|(?<!\\)\\++(?:u003e|x3e)|&(?:amp;)*(?:gt|#0*62|#x0*3e);)",
    re.IGNORECASE,
)
_TAG: Final = re.compile(rf"<((?:\\*/)?)({'|'.join(TAGS)})((?:\s[^<>]*)?)>", re.IGNORECASE)
_LONGEST_TAG: Final = 300
_DEEPEST: Final = 1000


@dataclass(frozen=True, kw_only=True)
class _Opening:
    name: str
    start: int
    bracket_before: int | None


class _Left:
    """What was not cut out so far: its pieces, and for each which bracket it is, if any."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.signs: list[str] = []

    def add(self, piece: str, sign: str) -> None:
        self.pieces.append(piece)
        self.signs.append(sign)

    def cut(self, start: int) -> None:
        del self.pieces[start:]
        del self.signs[start:]

    def tag(self, start: int) -> re.Match[str] | None:
        """The tag that the pieces from `start` on make."""
        plain = ""
        for place in range(start, len(self.pieces)):
            plain += self.signs[place] or self.pieces[place]
            if len(plain) > _LONGEST_TAG:
                return None
        return _TAG.fullmatch(plain)

    def pending(self, start: int) -> int | None:
        """Where an unfinished tag was begun before `start`: the last bracket, if it is an opening one."""
        for place in range(start - 1, max(-1, start - _LONGEST_TAG), -1):
            if self.signs[place]:
                return place if self.signs[place] == "<" else None
        return None


def has_tag_name(folded: str) -> bool:
    """Whether lower-cased text names one of the tags at all."""
    return any(tag in folded for tag in TAGS)


def strip_private(text: str) -> tuple[str, int]:
    """`text` without private parts, and how many there were. Tags nest, may carry attributes, in either case."""
    if not has_tag_name(text.lower()) or _BRACKET.search(text) is None:
        return text, 0
    left = _Left()
    opened: list[_Opening] = []
    bracket: int | None = None
    parts = 0
    for piece, sign in _pieces(text):
        left.add(piece, sign)
        if sign == "<":
            bracket = len(left.pieces) - 1
        elif sign == ">" and bracket is not None:
            tag, start, bracket = left.tag(bracket), bracket, None
            if tag is None or tag[3].rstrip("\\ \t\r\n").endswith("/"):
                continue
            name = tag[2].lower()
            if not tag[1]:
                opened.append(_Opening(name=name, start=start, bracket_before=left.pending(start)))
            elif (place := _matching(opened, name)) is not None:
                bracket = opened[place].bracket_before
                left.cut(opened[place].start)
                del opened[place:]
                parts += 1
    unclosed = next((opening.start for opening in opened if opening.name == _TO_THE_END), None)
    if unclosed is not None:
        left.cut(unclosed)
        parts += 1
    return ("".join(left.pieces), parts) if parts else (text, 0)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    done = 0
    for found in _BRACKET.finditer(text):
        if found.start() > done:
            yield text[done : found.start()], ""
        yield found[0], "<" if found[1] else ">"
        done = found.end()
    if done < len(text):
        yield text[done:], ""


def _matching(opened: list[_Opening], name: str) -> int | None:
    """The innermost opening of that name, among the last few: so many closings cannot make the search quadratic."""
    for place in range(len(opened) - 1, max(-1, len(opened) - 1 - _DEEPEST), -1):
        if opened[place].name == name:
            return place
    return None
