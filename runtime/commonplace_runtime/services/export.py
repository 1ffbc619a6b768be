"""Everything that a reader may see, as lines: page by page, so that neither memory nor a connection is held."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import orjson

from commonplace_runtime.domain.errors import InvalidInput, NotFound, Unavailable
from commonplace_runtime.domain.models import Json, Reach
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.transfer import FORMAT, KINDS, PARTS, USUAL_PARTS, VERSION, Kind, Place, read_cursor
from commonplace_runtime.store import transfer as store
from commonplace_runtime.store.pool import Pool, Record
from commonplace_runtime.store.transfer import ExportedProject, ExportPlan

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends with the line that makes it longer."""
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 1.0
_TYPES: Final[Mapping[Kind, str]] = {"memories": "memory", "events": "event", "sessions": "session"}


@dataclass(frozen=True, kw_only=True)
class ExportWish:
    """
    What to export. project: id or name, None for all that the reader reaches. since: changed at or after. cursor: of a
    line of an export with the same wishes. everything: private memories of everybody, for administrators.
    """

    project: str | None = None
    include: frozenset[str] = USUAL_PARTS
    since: datetime | None = None
    cursor: str | None = None
    everything: bool = False


def read_include(text: str | None) -> frozenset[str]:
    """The parts of a comma separated list; None: memories and their sources. Raises InvalidInput."""
    if text is None or not text.strip():
        return USUAL_PARTS
    found = frozenset(part.strip() for part in text.split(",") if part.strip())
    if unknown := sorted(found - set(PARTS)):
        raise InvalidInput(f"`include` knows {', '.join(PARTS)}, not {', '.join(unknown)[:100]}")
    if not found & set(KINDS):
        raise InvalidInput("`include` names no records: sources come with memories")
    return found


@dataclass(kw_only=True)
class Export:
    """One export under way. `lines` may be iterated once; close it (`aclosing`) wherever it is left early."""

    pool: Pool
    reach: Reach
    wish: ExportWish
    plan: ExportPlan
    start: Place | None
    counts: dict[str, int] = field(default_factory=dict)

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """
        Chunks of whole lines: the header, pages each with a mark, the end. A store that stays away ends it with a line
        of type `error`. However it ends, audit is told.
        """
        is_complete = False
        place = self.start
        try:
            yield _line(self._header())
            async with aclosing(self._pages()) as pages:
                async for place, chunk in pages:
                    yield chunk + _line({"type": "mark", "cursor": place.cursor})
            cursor = None if place is None else place.cursor
            is_complete = True
            yield _line({"type": "end", "counts": dict(self.counts), "cursor": cursor})
        except Unavailable:
            cursor = None if place is None else place.cursor
            yield _line({"type": "error", "message": "the memory store does not answer: go on later", "cursor": cursor})
        finally:
            await self._audit(is_complete)

    def _header(self) -> dict[str, Json]:
        wish = self.wish
        return {
            "type": "header",
            "format": FORMAT,
            "version": VERSION,
            "team": {**self.plan["team"]},
            "project": None if wish.project is None else self.plan["projects"][0]["name"],
            "include": [part for part in PARTS if part in wish.include],
            "since": None if wish.since is None else wish.since.isoformat(),
            "exportedAtEpoch": self.plan["nowEpoch"],
        }

    async def _pages(self) -> AsyncGenerator[tuple[Place, bytes], None]:
        """Each page's end, and its lines in one piece."""
        for project in self.plan["projects"]:
            for kind in KINDS:
                if kind not in self.wish.include:
                    continue
                place = Place(project_id=project["id"], kind=kind)
                if self.start is not None and _order(place) <= _order(self.start):
                    if _order(place) < _order(self.start):
                        continue
                    place = self.start
                while rows := await self._page(project, place):
                    place = Place(project_id=project["id"], kind=kind, after=rows[-1]["place"])
                    found = [row["line"] for row in rows if row["line"] is not None]
                    if found:
                        self.counts[_TYPES[kind]] = self.counts.get(_TYPES[kind], 0) + len(found)
                        yield place, "\n".join([*found, ""]).encode()

    async def _page(self, project: ExportedProject, place: Place) -> list[Record]:
        for left in reversed(range(_TRIES)):
            try:
                found = await store.export_page(
                    self.pool,
                    self.reach,
                    project,
                    place,
                    since=self.wish.since,
                    with_sources="sources" in self.wish.include,
                    with_sessions="sessions" in self.wish.include,
                    everything=self.wish.everything,
                    rows=PAGE_ROWS,
                    size=PAGE_BYTES,
                )
                return list(found)
            except Unavailable:
                if not left:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
        return []

    async def _audit(self, is_complete: bool) -> None:
        details: dict[str, Json] = {"stage": "ended", "complete": is_complete, "counts": dict(self.counts)}
        project_id = None if self.wish.project is None else self.plan["projects"][0]["id"]
        await store.audit_export(self.pool, self.reach, project_id, details)


async def begin_export(pool: Pool, reach: Reach, wish: ExportWish) -> Export:
    """
    An export, audited from here on.

    Raises NotFound for an unknown project, NotPermitted for another than the key's, InvalidInput for a cursor that is
    none, Unavailable.
    """
    start = None if wish.cursor is None else read_cursor(wish.cursor)
    project = None if wish.project is None else str(redact(wish.project).value)
    details: dict[str, Json] = {
        "stage": "begun",
        "include": [part for part in PARTS if part in wish.include],
        "since": None if wish.since is None else wish.since.isoformat(),
        "resumed": start is not None,
    }
    plan = await store.begin_export(pool, reach, project, details)
    if plan is None:
        raise NotFound("Project not found")
    return Export(pool=pool, reach=reach, wish=wish, plan=plan, start=start)


def _order(place: Place) -> tuple[str, int]:
    return place.project_id, KINDS.index(place.kind)


def _line(value: Mapping[str, Json]) -> bytes:
    return orjson.dumps(dict(value)) + b"\n"
