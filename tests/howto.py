"""The commands, files and links of a document, for tests that hold them against the code."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
CONNECT: Final = REPOSITORY / "docs" / "howto" / "connect.md"
MCP: Final = CONNECT.with_name("mcp.md")
TRANSFER: Final = CONNECT.with_name("export-import.md")

_FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND: Final = re.compile(r"^\$ (.*(?:\n {4,}.*)*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What stands behind `$ `, with its further lines, and what the document shows of its output."""

    line: str
    output: str

    @property
    def words(self) -> list[str]:
        """As a shell splits it, variables left as they are; without what follows a pipe."""
        words = shlex.split(self.line.replace("\\\n", " "))
        return words[: words.index("|")] if "|" in words else words


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Info string and content of each fenced block."""
    for match in _FENCE.finditer(document.read_text()):
        yield match[1], match[2]


def files(document: Path) -> dict[str, str]:
    """Content by name, of the blocks whose info string names a file after the language."""
    return {info.split()[1]: content for info, content in blocks(document) if len(info.split()) == 2}


def commands(document: Path, *programs: str) -> list[Command]:
    """Each command of these programs, in the order of the document."""
    found = [
        Command(line=match[1], output=match[2])
        for info, content in blocks(document)
        if not info
        for match in _COMMAND.finditer(content)
    ]
    return [command for command in found if command.words[0] in programs]
