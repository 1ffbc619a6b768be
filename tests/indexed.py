"""Memories to be indexed, and the keeper run until it rests."""

from uuid import UUID

from commonplace_runtime.ids import uuid7
from commonplace_runtime.services.keep_index import keep_indexes
from commonplace_runtime.store.pool import Pool
from tests.factories import Team

WORDS = [f"w{number}" for number in range(400)]


def text_of(number: int) -> str:
    """Twelve words; some of them stand in many texts, some in few."""
    return (
        " ".join(WORDS[(number * step + step * step) % (40 * step)] for step in range(1, 10))
        + f" only{number} readFile"
    )


async def write(
    pool: Pool,
    team: Team,
    numbers: range,
    *,
    session: str | None = None,
    owner: str | None = None,
    project: str | None = None,
) -> list[UUID]:
    """Memories with the texts of these numbers; private ones where an owner is named."""
    ids = [uuid7() for _ in numbers]
    await pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content, session_id)"
        " SELECT id, $1, $2, $3, $4, content, $5 FROM unnest($6::uuid[], $7::text[]) AS m (id, content)",
        UUID(team.id),
        UUID(project or team.project_id),
        owner or "agent:tester",
        "team" if owner is None else "private",
        None if session is None else UUID(session),
        ids,
        [text_of(number) for number in numbers],
    )
    return ids


async def keep(pool: Pool) -> None:
    """Until there is nothing to do."""
    while await keep_indexes(pool):
        pass


async def hint(pool: Pool) -> None:
    """As every 32nd memory does."""
    await pool.execute(
        "INSERT INTO commonplace.search_work (team_id, project_id) SELECT team_id, id FROM commonplace.projects"
    )
