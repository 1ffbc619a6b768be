"""What claude-mem's hooks and tools ask their local worker for: how a file is recognised, and what rows look like."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.observations import clip

SUMMARY: Final = "summary"
TITLE_CHARACTERS: Final = 160
STEERING: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""
Characters that steer a terminal, turn the reading order, or show nothing, so that a model reads what a person beside it
cannot see; a line feed is none of them. Joiners stay: names and emoji need them.
"""
_MOST_PARTS: Final = 64
"""Folders in which a file may stand. A path of nothing but slashes would otherwise have hundreds of endings."""
_MOST_ENDINGS: Final = 200
"""Every stored path of the file's name is compared with each; real questions have a handful."""
Order: TypeAlias = Literal["relevance", "date_desc", "date_asc"]


class WorkerRow(TypedDict):
    """A memory as these routes read it. `project`: its repository's local name; `content`: where all was asked for."""

    number: int
    id: str
    kind: str
    title: str | None
    opening: str
    sessionId: str | None
    createdAtEpoch: int
    project: str
    metadata: dict[str, Json]
    content: NotRequired[str]


class ContextRows(TypedDict):
    """What a session begins with: the newest memories, and the newest summary of a session."""

    memories: list[WorkerRow]
    summary: WorkerRow | None


class TimelineRows(TypedDict):
    """Memories around one, oldest first. `anchor`: that one's id; None: it is not there."""

    anchor: str | None
    memories: list[WorkerRow]


class SearchRows(TypedDict):
    """A page of what was found, and how much that was."""

    total: int
    memories: list[WorkerRow]


@dataclass(frozen=True, kw_only=True)
class WorkerSearch:
    """
    One question. `names`: local names of repositories, None for all. `query` None: the newest. `kinds` None: all but
    `no_kinds`.
    """

    names: Sequence[str] | None
    query: str | None
    platform: str | None
    kinds: Sequence[str] | None
    no_kinds: Sequence[str]
    since: datetime | None
    until: datetime | None
    order: Order
    limit: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """
    What a stored path is compared with. `names`: last parts; a path is the file when it is one of `paths` or ends
    with one of `endings`.
    """

    names: Sequence[str]
    paths: Sequence[str]
    endings: Sequence[str]


def wanted_file(paths: Sequence[str], repositories: Sequence[str]) -> WantedFile:
    """
    How memories may have written any of `paths`, which are one file: absolute here, or on another machine, or relative.

    A single name counts only as it is, or right under a folder that has a repository's name: every second repository
    has a README.md, and folders inside have theirs.
    """
    tidy = [path for path in (_tidy(path) for path in paths) if path and path.count("/") <= _MOST_PARTS]
    roots = {name.rsplit("/", 1)[-1] for name in repositories} - {""}
    inside = {path: _inside(path, roots) for path in tidy}
    same: dict[str, None] = {}
    endings: dict[str, None] = {}
    for path in tidy:
        same |= dict.fromkeys((path, *inside[path]))
        parts = path.split("/")
        if _is_absolute(path):
            same |= dict.fromkeys("/".join(parts[start:]) for start in range(1, len(parts) - 1))
        elif parts[0] != "..":
            endings |= {f"/{path}": None} if len(parts) > 1 else {}
            endings |= dict.fromkeys(f"/{root}/{path}" for root in roots)
        endings |= dict.fromkeys(f"/{root}/{rest}" for rest in inside[path] for root in roots)
    names = dict.fromkeys(path.rsplit("/", 1)[-1] for path in tidy)
    return WantedFile(names=sorted(names), paths=sorted(same), endings=sorted(islice(endings, _MOST_ENDINGS)))


def _tidy(path: str) -> str:
    """As the store writes paths: slashes, none at the end, no leading `./`."""
    path = path.strip(" ").replace("\\", "/").rstrip("/")
    while path.startswith("./"):
        path = path[2:]
    return path


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or path[1:3] == ":/"


def _inside(path: str, roots: set[str]) -> Sequence[str]:
    """What follows a repository's name in an absolute path."""
    parts = path.split("/")
    if not _is_absolute(path):
        return ()
    return ["/".join(parts[place + 1 :]) for place, part in enumerate(parts[:-1]) if part in roots]


def by_file_row(row: WorkerRow) -> dict[str, Json]:
    """A row of the list that a hook shows before a file is read; lists are JSON in a string, as SQLite keeps them."""
    return {
        "id": row["number"],
        "uuid": row["id"],
        "memory_session_id": row["sessionId"],
        "project": row["project"],
        "type": row["kind"],
        "title": one_line(row["title"] or row["opening"], TITLE_CHARACTERS),
        "created_at": iso(row["createdAtEpoch"]),
        "created_at_epoch": row["createdAtEpoch"],
        "files_read": _listed(row["metadata"], "files_read", "filesRead"),
        "files_modified": _listed(row["metadata"], "files_modified", "filesModified"),
    }


def batch_row(row: WorkerRow) -> dict[str, Json]:
    """A whole memory in the fields of claude-mem's observation."""
    metadata = row["metadata"]
    return {
        **by_file_row(row),
        "subtitle": _text(metadata, "subtitle"),
        "narrative": _text(metadata, "narrative"),
        "text": row.get("content", row["opening"]),
        "facts": _listed(metadata, "facts"),
        "concepts": _listed(metadata, "concepts"),
    }


def one_line(text: str, characters: int) -> str:
    """`text` on one line, without what steers a terminal or turns the reading order."""
    return clip(" ".join(STEERING.sub(" ", text).split()), characters)


def iso(epoch_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _listed(metadata: Mapping[str, Json], *spellings: str) -> str:
    value = next((metadata[name] for name in spellings if isinstance(metadata.get(name), list)), [])
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    return json.dumps(texts, ensure_ascii=False)


def _text(metadata: Mapping[str, Json], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) else None
