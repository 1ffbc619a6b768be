"""The states of a search index, which the tests of what searches promise go through."""

from typing import Literal, TypeAlias

from commonplace_runtime.domain.postings import Room, Waiting, merge
from commonplace_runtime.store.pool import Pool

State: TypeAlias = Literal["waiting", "merged", "being built"]
STATES: tuple[State, ...] = ("waiting", "merged", "being built")


async def bring_to(admin_pool: Pool, state: State) -> None:
    """All memories wait, or stand in segments, or none is known to the index of a project that is being built."""
    if state == "merged":
        await _merge_all(admin_pool)
    elif state == "being built":
        await admin_pool.execute("DELETE FROM commonplace.search_tail")
        await admin_pool.execute(
            "INSERT INTO commonplace.search_work (team_id, project_id, rebuild_from)"
            " SELECT team_id, id, 0 FROM commonplace.projects"
        )


async def _merge_all(admin_pool: Pool) -> None:
    indexes = await admin_pool.fetch("SELECT DISTINCT team_id, project_id, owner_actor FROM commonplace.search_tail")
    for index in indexes:
        where = (index["team_id"], index["project_id"], index["owner_actor"])
        async with admin_pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.team_id', $1, true)", str(where[0]))
            rows = await connection.fetch(
                "DELETE FROM commonplace.search_tail WHERE team_id = $1 AND project_id = $2 AND owner_actor = $3"
                " RETURNING number, memory_id::text, session_id::text, terms",
                *where,
            )
            tail = [Waiting(**row) for row in sorted(rows, key=lambda row: row["number"])]
            made = await connection.fetchrow(
                "INSERT INTO commonplace.search_indexes AS i (team_id, project_id, owner_actor) VALUES ($1, $2, $3)"
                " ON CONFLICT (team_id, project_id, owner_actor) DO UPDATE SET next_segment = i.next_segment + 1"
                " RETURNING *",
                *where,
            )
            assert made is not None
            room = Room(next_block=made["next_block"], next_single=made["next_single"], sessions={})
            merged = merge(tail, room)
            await connection.execute(
                "UPDATE commonplace.search_indexes SET next_block = $2, next_single = $3 WHERE number = $1",
                made["number"],
                merged.room.next_block,
                merged.room.next_single,
            )
            place = (made["number"], where[0])
            await connection.executemany(
                "INSERT INTO commonplace.search_documents (index_no, team_id, docno, memory_id)"
                " VALUES ($1, $2, $3, $4)",
                [(*place, docno, each.memory_id) for docno, each in zip(merged.docnos, tail, strict=True)],
            )
            await connection.execute(
                "INSERT INTO commonplace.search_segments (index_no, team_id, segment, documents)"
                " VALUES ($1, $2, $3, $4)",
                *place,
                made["next_segment"],
                len(tail),
            )
            await connection.executemany(
                "INSERT INTO commonplace.search_postings (index_no, team_id, segment, term, data)"
                " VALUES ($1, $2, $3, $4, $5)",
                [
                    (*place, made["next_segment"], term, data)
                    for term, data in zip(merged.terms, merged.postings, strict=True)
                ],
            )
