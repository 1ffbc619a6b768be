"""The search index in the database, as its keeper works on it: what is to be done, and steps, each a transaction."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from commonplace_runtime.domain.postings import Merged, Place, Room, Waiting
from commonplace_runtime.store.calls import ACQUIRE_TIMEOUT_SECONDS
from commonplace_runtime.store.pool import Connection, Pool, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("search_index")
LOCK_MILLISECONDS: Final = 50
"""How long the keeper waits for a row: whoever writes or erases goes first, and the keeper comes again."""
TURN_MILLISECONDS: Final = 1_000
"""How long the keeper waits for erasures, each of which holds a project's index for some milliseconds."""
PATIENT_MILLISECONDS: Final = 10_000
"""How long an erasure waits for the keeper, whose transactions are short."""
BEFORE_ALL: Final = -(2**31) - 1
"""Before every word."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project whose index is kept."""

    team_id: str
    project_id: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """segments: (segment, level) in ascending order. has_dead: postings of documents that are gone."""

    number: int
    has_living: bool
    has_dead: bool
    segments: Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class State:
    """What there is in a project. hints: those that this answers. tails: the weight of what waits, by owner."""

    hints: Sequence[int]
    rebuilds: bool
    tails: Mapping[str, int]
    indexes: Sequence[Index]


Pair: TypeAlias = tuple[int, int]
"""Of two numbers that belong together."""


@dataclass(frozen=True, kw_only=True)
class List:
    """The postings of a word in a segment, packed; place: where the row is, within this transaction."""

    place: Pair
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Dead:
    """
    Documents, ascending, whose postings are to go.

    lists: each of their words with the segment into which they were merged. has_more: there are others.
    """

    has_living: bool
    has_more: bool
    documents: Sequence[int]
    lists: Sequence[Pair]


async def work(pool: Pool, *, most: int) -> list[Project]:
    """Projects of any team with hints, of each team its oldest first. Raises Unavailable."""
    async with faults_as_unavailable():
        found = await pool.fetchval(_SQL["work"], most)
    return [Project(team_id=each["teamId"], project_id=each["projectId"]) for each in found]


async def state(pool: Pool, project: Project) -> State:
    """What the keeper finds now. Raises Unavailable."""
    async with faults_as_unavailable():
        found = await pool.fetchval(_SQL["state"], project.team_id, project.project_id)
    return State(
        hints=found["hints"],
        rebuilds=found["rebuilds"],
        tails=found["tails"],
        indexes=[
            Index(
                number=index["number"],
                has_living=index["hasLiving"],
                has_dead=index["hasDead"],
                segments=[(segment, level) for segment, level in index["segments"]],
            )
            for index in found["indexes"]
        ],
    )


async def dead_indexes(pool: Pool, project: Project) -> list[int]:
    """The indexes with postings of dead documents. Raises Unavailable."""
    async with faults_as_unavailable():
        found: list[int] = await pool.fetchval(_SQL["dead_indexes"], project.team_id, project.project_id)
    return found


class Held:
    """A project's index within one transaction, in which nobody else merges, compacts, purges or rebuilds it."""

    def __init__(self, connection: Connection, project: Project) -> None:
        self._connection = connection
        self._project = project
        self._team = project.team_id

    async def done(self, hints: Sequence[int]) -> None:
        """These hints are answered."""
        await self._connection.execute(_SQL["done"], self._team, hints)

    async def rebuild(self, memories: int) -> int:
        """Put the next memories of a project that is built anew into the tail; how many those were, 0: it is built."""
        written: int = await self._value("rebuild", self._project.project_id, memories)
        return written

    async def tail(self, owner: str, most: int) -> list[Waiting]:
        """The oldest that wait and that nobody changes just now, locked; each 600 words of one count as one more."""
        rows = await self._connection.fetch(_SQL["tail"], self._team, self._project.project_id, owner, most)
        return [
            Waiting(
                number=row["number"],
                memory_id=str(row["memory_id"]),
                session_id=None if row["session_id"] is None else str(row["session_id"]),
                terms=row["terms"],
            )
            for row in rows
        ]

    async def room(self, owner: str, tail: Sequence[Waiting]) -> tuple[int, Room]:
        """The index of an owner, made if need be, and what it has given away as far as `tail` asks for it."""
        mine = (self._team, self._project.project_id, owner)
        index = await self._connection.fetchrow(_SQL["index"], *mine) or await self._connection.fetchrow(
            _SQL["new_index"], *mine
        )
        assert index is not None  # noqa: S101 - an INSERT without a conflict clause returns its row
        sessions = list({waiting.session_id for waiting in tail if waiting.session_id is not None})
        places = await self._connection.fetch(_SQL["places"], self._team, index["number"], sessions)
        return index["number"], Room(
            next_block=index["next_block"],
            next_single=index["next_single"],
            sessions={str(row["session_id"]): Place(block=row["block"], used=row["used"]) for row in places},
        )

    async def write(self, owner: str, index_no: int, tail: Sequence[Waiting], merged: Merged) -> None:
        """The tail is a segment now, and waits no more."""
        sessions = merged.room.sessions
        await self._connection.execute(
            _SQL["write"],
            self._team,
            index_no,
            merged.room.next_block,
            merged.room.next_single,
            merged.docnos,
            [waiting.memory_id for waiting in tail],
            list(sessions),
            [place.block for place in sessions.values()],
            [place.used for place in sessions.values()],
            merged.terms,
            merged.postings,
        )
        await self._connection.execute(
            _SQL["untail"], self._team, self._project.project_id, owner, [waiting.number for waiting in tail]
        )

    async def compact(self, index_no: int, span: tuple[int, int], *, after: int, terms: int) -> int | None:
        """Put the next words of the segments of `span` together; the last of these words, None: it is done."""
        reached: int | None = await self._value("compact", index_no, *span, after, terms)
        return reached

    async def dead(self, index_no: int, most: int, words: int) -> Dead:
        """What is to be purged, `most` documents of it with about so many words."""
        row = await self._connection.fetchrow(_SQL["dead"], self._team, index_no, most, words)
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        return Dead(
            has_living=row["has_living"],
            has_more=row["has_more"],
            documents=row["documents"],
            lists=list(zip(row["terms"] or (), row["segments"] or (), strict=True)),
        )

    async def lists(self, index_no: int, wanted: Sequence[Pair]) -> list[List]:
        """The lists that have what was merged into these segments of these words."""
        terms, segments = [term for term, _ in wanted], [segment for _, segment in wanted]
        rows = await self._connection.fetch(_SQL["lists"], self._team, index_no, terms, segments)
        return [List(place=row["place"], data=row["data"]) for row in rows]

    async def rewrite(self, index_no: int, lists: Sequence[List]) -> None:
        """These lists are other ones now; an empty one is none."""
        places, data = [one.place for one in lists], [one.data for one in lists]
        await self._connection.execute(_SQL["rewrite"], self._team, index_no, places, data)

    async def purged(self, index_no: int, documents: Sequence[int]) -> None:
        """No posting of these is left."""
        await self._connection.execute(_SQL["purged"], self._team, index_no, documents)

    async def drop(self, index_no: int, rows: int) -> bool | None:
        """Take rows of an index away, itself at last; whether there are more, None: it has documents and stays."""
        goes_on: bool | None = await self._value("drop", index_no, rows)
        return goes_on

    async def _value(self, name: str, *arguments: object) -> Any:
        return await self._connection.fetchval(_SQL[name], self._team, *arguments)


@asynccontextmanager
async def holding(pool: Pool, project: Project, *, patient: bool = False) -> AsyncIterator[Held | None]:
    """
    One transaction on a project's index; None while another keeper is at it. patient: an erasure, which waits for all.

    Raises Unavailable, also when somebody else held a row.
    """
    async with (
        faults_as_unavailable(),
        pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection,
        connection.transaction(),
    ):
        is_held = await _hold(connection, project, patient=patient)
        yield Held(connection, project) if is_held else None


async def postpone(pool: Pool, project: Project) -> None:
    """All other projects with hints come before this one. Raises Unavailable."""
    async with (
        faults_as_unavailable(),
        pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection,
        connection.transaction(),
    ):
        await _hold(connection, project, patient=True)
        await connection.execute(_SQL["postpone"], project.team_id, project.project_id)


async def _hold(connection: Connection, project: Project, *, patient: bool) -> bool:
    turn, rows = (PATIENT_MILLISECONDS,) * 2 if patient else (TURN_MILLISECONDS, LOCK_MILLISECONDS)
    row = await connection.fetchrow(_SQL["hold"], project.team_id, project.project_id, patient, str(turn), str(rows))
    return row is not None and bool(row["held"])
