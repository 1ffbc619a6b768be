"""What a session's earlier events told of files, so that a file is not read to a model twice."""

import hashlib
import json
import re
from collections.abc import Collection
from typing import Final

from commonplace_runtime.domain.payloads import READ_TOOLS, WRITE_TOOLS, ToolUse, as_mapping

_DIGEST_CHARACTERS: Final = 16
_MAX_EDITS: Final = 50
"""Of one event; each reads through the whole file."""
MAX_CHARACTERS: Final = 2_000_000
"""Of a file as edits leave it: a few that replace every letter would make any memory too small."""
_LINE_NUMBER = re.compile(r"^[ \t]*\d+[→\t]", re.MULTILINE)


def digest_of(value: object) -> str:
    """A short digest of a JSON value; empty where it nests too deep or is none."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        return ""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]


def of_file(path: str, text: str) -> list[str]:
    """What stands for a file with this text."""
    return ["file", path, text.rstrip()]


def whole_file(use: ToolUse) -> str | None:
    """The file's text where a read shows all of it."""
    if use.input.get("offset") or use.input.get("limit"):
        return None
    file = as_mapping(as_mapping(use.response).get("file"))
    text: object = file.get("content") if file else use.response
    if not isinstance(text, str) or not text.strip():
        return None
    lines, total = file.get("numLines"), file.get("totalLines")
    cut = isinstance(lines, int) and isinstance(total, int) and lines < total
    return None if cut else text if file else _LINE_NUMBER.sub("", text)


class KnownFiles:
    """
    Follows the texts of files through reads, writes and edits.

    told: digests of the files that earlier batches told. An edit of a file that was never told whole makes nothing
    known: the rest of that file is still news. Nor does one that makes more of a file than MAX_CHARACTERS.
    """

    def __init__(self, told: Collection[str]) -> None:
        self._told = told
        self._texts: dict[str, str] = {}

    def show(self, use: ToolUse, tool: str) -> bool:
        """Whether a read shows lines of a file that this batch told whole, and nothing more."""
        if tool not in READ_TOOLS or whole_file(use) is not None:
            return False
        part = as_mapping(as_mapping(use.response).get("file")).get("content")
        return isinstance(part, str) and bool(part.strip()) and part in self._texts.get(use.path(), "")

    def after(self, use: ToolUse, tool: str) -> str:
        """Digest of the file as this write or edit left it, as reading it would have; empty where it is not known."""
        path = use.path()
        if tool in READ_TOOLS and (text := whole_file(use)) is not None:
            self._texts[path] = text
        if tool not in WRITE_TOOLS or not path:
            return ""
        given = use.input.get("content")
        left = given if isinstance(given, str) else self._edited(use, path)
        if left is None:
            self._texts.pop(path, None)
            return ""
        self._texts[path] = left
        return digest_of(of_file(path, left))

    def _edited(self, use: ToolUse, path: str) -> str | None:
        text = self._texts.get(path)
        original = as_mapping(use.response).get("originalFile")
        if isinstance(original, str) and digest_of(of_file(path, original)) in self._told:
            text = original
        listed = use.input.get("edits")
        edits = listed if isinstance(listed, list) else [use.input]
        if len(edits) > _MAX_EDITS:
            return None
        for edit in edits:
            old, new = as_mapping(edit).get("old_string"), as_mapping(edit).get("new_string")
            if text is None or not isinstance(old, str) or not isinstance(new, str) or old not in text:
                return None
            times = text.count(old) if as_mapping(edit).get("replace_all") is True else 1
            if len(text) + times * (len(new) - len(old)) > MAX_CHARACTERS:
                return None
            text = text.replace(old, new, times)
        return text
