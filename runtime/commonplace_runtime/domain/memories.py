"""A memory as a client writes it: read from its body, bounded, and cleaned of what must not be stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, cast

from typing_extensions import TypedDict

from commonplace_runtime.domain.bounded_fields import BoundedFields, distinct
from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.validation import InvalidFields, Issue, type_name, wrong_type

MANUAL: Final = "manual"
"""The kind of a memory that somebody wrote down."""
MAX_TITLE: Final = 1000
MAX_WORD: Final = 200
"""Characters of a tag, kind or type."""
MAX_TAGS: Final = 100
MAX_ITEMS: Final = 1000
"""Facts, concepts or files of one memory."""
MAX_KEYWORDS: Final = 100
VISIBILITIES: Final = ("team", "private")
_TEXTS: Final = ("narrative", "text")
_WORDS: Final = {"type": MAX_WORD, "subtitle": MAX_TITLE}
"""Texts that are kept in the metadata, and their longest."""
_LISTS: Final = {
    "facts": ("facts",),
    "concepts": ("concepts",),
    "files_read": ("filesRead", "files_read"),
    "files_modified": ("filesModified", "files_modified"),
}
"""Lists that are kept in the metadata, and the fields that they are read from."""


class MemoryRow(TypedDict):
    """
    A memory as a resource: an ObservationRow and more.

    `score` is None. `actor` wrote it, and alone sees it where `visibility` is private.
    """

    id: str
    projectId: str
    teamId: str
    serverSessionId: str | None
    kind: str
    title: str | None
    content: str
    metadata: dict[str, Json]
    sources: list[dict[str, str]]
    score: float | None
    createdAtEpoch: int
    updatedAtEpoch: int
    tags: list[str]
    importance: float
    visibility: Literal["team", "private"]
    actor: str
    supersededBy: str | None
    validFromEpoch: int | None
    validToEpoch: int | None


class MemoryPage(TypedDict):
    """Memories, newest first; `nextCursor` is None at the end."""

    memories: list[MemoryRow]
    nextCursor: str | None


class SourceRow(TypedDict):
    """The link from a memory to what it was made of."""

    id: str
    sourceType: str
    sourceId: str
    generationJobId: str | None
    createdAtEpoch: int


class SourcedMemoryRow(MemoryRow):
    """A memory with the event's link to it."""

    generationKey: str | None
    createdByJobId: str | None
    source: SourceRow


class EventMemories(TypedDict):
    """What was made of one event, oldest first."""

    eventId: str
    observations: list[SourcedMemoryRow]


@dataclass(frozen=True, kw_only=True)
class NewMemory:
    """
    A memory to be stored.

    project: id or name, None for the key's own. visibility: None for the team's default. importance: 0 to 1, None for
    the usual. keywords: further words that find it. supersedes: id of the one whose place it takes.
    """

    project: str | None = None
    content: str
    kind: str = MANUAL
    title: str | None = None
    session: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    tags: Sequence[str] = ()
    keywords: Sequence[str] = ()
    importance: float | None = None
    visibility: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    supersedes: str | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryQuery:
    """
    Which memories are to be listed; None is any. project: id or name, None for all in reach. since: made then or
    later, until: made before. before: the number that a cursor stands for.
    """

    project: str | None = None
    kind: str | None = None
    session: str | None = None
    actor: str | None = None
    tag: str | None = None
    visibility: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    include_superseded: bool = False
    limit: int = 50
    before: int | None = None


@dataclass(frozen=True, kw_only=True)
class CleanMemory:
    """What may be handed to the store, and how many secrets of which pattern were taken out of it."""

    row: dict[str, Json]
    secrets: Mapping[str, int]


def read_memory(body: object) -> NewMemory:
    """
    One memory from a body; a null counts as absent. Its text is `content`, `narrative` or `text`; without one, what
    else can be searched makes it. Raises InvalidFields with all its faults.
    """
    issues: list[Issue] = []
    fields = _MemoryFields(body, issues)
    extras = {name: value for name, value in fields.extras().items() if value is not None}
    title = fields.bounded("title", MAX_TITLE)
    text = fields.main_text()
    valid_from, valid_to = fields.moment("validFrom"), fields.moment("validTo")
    memory = NewMemory(
        project=fields.text("projectId"),
        content=text or _composed(title, extras),
        kind=fields.bounded("kind", MAX_WORD, least=1) or MANUAL,
        title=title,
        session=fields.text("serverSessionId"),
        metadata={**fields.metadata(), **({} if title is None else {"title": title}), **extras},
        tags=fields.words("tags", MAX_TAGS, MAX_WORD),
        keywords=_keywords(extras),
        importance=fields.fraction("importance"),
        visibility=fields.choice("visibility", VISIBILITIES, "") or None,
        valid_from=valid_from,
        valid_to=valid_to,
        supersedes=fields.text("supersedes"),
    )
    if not memory.content and not issues:
        issues.append(wrong_type(("content",), "string", "null" if fields.has("content") else "undefined"))
    if valid_from is not None and valid_to is not None and valid_to < valid_from:
        issues.append(ENDS_TOO_EARLY)
    if issues:
        raise InvalidFields(issues)
    return memory


ENDS_TOO_EARLY: Final[Issue] = {"code": "custom", "path": ["validTo"], "message": "validTo is before validFrom"}


def read_changes(body: object) -> dict[str, Json]:
    """
    What of a memory is to change, in the names that the store has for it; what the body leaves out is not there.

    Null clears title, subtitle, type, tags, lists, session, importance and validity; content, kind and visibility
    cannot be cleared. `metadata` is laid over what is there, key by key, where a key with null goes; null empties it.
    Raises InvalidFields with all its faults.
    """
    issues: list[Issue] = []
    fields = _MemoryFields(body, issues)
    issues += [wrong_type((name,), "string", "null") for name in fields.cleared_in_vain()]
    extras = fields.extras()
    set_ones: dict[str, Json] = {
        "content": fields.main_text(),
        "kind": fields.bounded("kind", MAX_WORD, least=1),
        "visibility": fields.choice("visibility", VISIBILITIES, "") or None,
        "project": fields.text("projectId"),
        "supersedes": fields.text("supersedes"),
    }
    clearable: dict[str, tuple[str, Json]] = {
        "title": ("title", fields.bounded("title", MAX_TITLE)),
        "tags": ("tags", list(fields.words("tags", MAX_TAGS, MAX_WORD))),
        "serverSessionId": ("session", fields.text("serverSessionId")),
        "importance": ("importance", fields.fraction("importance")),
        "validFrom": ("validFrom", _iso(fields.moment("validFrom"))),
        "validTo": ("validTo", _iso(fields.moment("validTo"))),
        "concepts": ("keywords", list(_keywords(extras))),
    }
    changes: dict[str, Json] = {name: value for name, value in set_ones.items() if value is not None}
    changes |= {kept_as: value for name, (kept_as, value) in clearable.items() if fields.has(name)}
    metadata = {**fields.metadata(), **extras, **({"title": changes["title"]} if "title" in changes else {})}
    if fields.has("metadata") and fields.value("metadata") is None:
        changes["clearMetadata"] = True
    if metadata:
        changes["metadata"] = metadata
    if issues:
        raise InvalidFields(issues)
    return changes


def clean_memory(memory: NewMemory, memory_id: str) -> CleanMemory:
    """Strip private parts and secrets, then name the memory. `memory_id`: a fresh id."""
    given: dict[str, Json] = {
        "project": memory.project,
        "session": memory.session,
        "kind": memory.kind,
        "title": memory.title,
        "content": memory.content,
        "metadata": dict(memory.metadata),
        "tags": list(memory.tags),
        "keywords": list(memory.keywords),
        "importance": memory.importance,
        "visibility": memory.visibility,
        "validFrom": _iso(memory.valid_from),
        "validTo": _iso(memory.valid_to),
        "supersedes": memory.supersedes,
    }
    clean = clean_changes(given)
    return CleanMemory(row={"id": memory_id, **clean.row}, secrets=clean.secrets)


def clean_changes(given: Mapping[str, Json]) -> CleanMemory:
    """The same fields without private parts and secrets."""
    secrets: dict[str, int] = {}
    row: dict[str, Json] = {}
    for name, value in given.items():
        found = redact(value)
        row[name] = found.value
        for pattern, count in found.secrets.items():
            secrets[pattern] = secrets.get(pattern, 0) + count
    if "kind" in row:
        row["kind"] = row["kind"] or MANUAL
    for name in ("tags", "keywords"):
        if name in row:
            row[name] = list(distinct(cast("list[str]", row[name])))
    return CleanMemory(row=row, secrets=secrets)


def clean_query(query: MemoryQuery) -> dict[str, Json]:
    """The filters as the store reads them and audit may keep them."""
    return {
        "project": storable(query.project),
        "kind": storable(query.kind),
        "session": storable(query.session),
        "actor": storable(query.actor),
        "tag": storable(query.tag),
        "visibility": query.visibility,
        "since": _iso(query.since),
        "until": _iso(query.until),
        "superseded": query.include_superseded or None,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _composed(title: str | None, extras: Mapping[str, Json]) -> str:
    """A text out of what else there is, laid out as generated ones are."""
    facts = "\n".join(f"- {fact}" for fact in cast("list[str]", extras.get("facts") or []))
    concepts = ", ".join(cast("list[str]", extras.get("concepts") or []))
    parts = (title, cast("str | None", extras.get("subtitle")), facts, concepts)
    return "\n\n".join(part for part in parts if part)


def _keywords(extras: Mapping[str, Json]) -> Sequence[str]:
    return [concept[:MAX_WORD] for concept in cast("list[str]", extras.get("concepts") or [])][:MAX_KEYWORDS]


class _MemoryFields(BoundedFields):
    """The fields of a memory's body; an empty text counts as none, but for `content` and names."""

    def extras(self) -> dict[str, Json]:
        """What is kept in the metadata, under claude-mem's names for it; None for what is there and empty."""
        found: dict[str, Json] = {}
        for name, most in _WORDS.items():
            if self.has(name):
                found[name] = self.bounded(name, most)
        for kept_as, names in _LISTS.items():
            for name in names:
                if self.has(name):
                    found[kept_as] = cast("list[Json]", list(self.strings(name, MAX_ITEMS))) or None
                    break
        if self.value("content") is not None and self.has("narrative"):
            found["narrative"] = self.plain("narrative")
        return found

    def cleared_in_vain(self) -> list[str]:
        """Fields with null that a memory cannot be without."""
        needed = ["kind", "visibility", "projectId"]
        if not any(self.value(name) for name in _TEXTS):
            needed.append("content")
        return [name for name in needed if self.has(name) and self.value(name) is None]

    def main_text(self) -> str | None:
        """`content`, else what other clients call it."""
        content = self.text("content")
        if content is not None:
            return content
        others = [self.plain(name) for name in _TEXTS]
        return next((text for text in others if text is not None), None)

    def metadata(self) -> dict[str, Json]:
        """An object of any shape."""
        value = self.value("metadata")
        if value is not None and not isinstance(value, dict):
            self._add(wrong_type((*self._path, "metadata"), "record", type_name(value)))
        return dict(value) if isinstance(value, dict) else {}
