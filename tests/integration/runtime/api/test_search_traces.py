"""What a memory no longer says is not told by those beside it."""

from typing import Any

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import make_key, make_session, make_team
from tests.integration.runtime.api.memories import patch, write
from tests.integration.runtime.indexes import merge_all


@pytest.mark.parametrize(
    "change", [{"visibility": "private"}, {"content": "Nothing was said"}], ids=["private", "changed"]
)
async def test_a_word_that_was_taken_away_finds_no_neighbours(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool, change: dict[str, Any]
) -> None:
    team = await make_team(admin_pool)
    ann = await make_key(admin_pool, team.id, project_id=team.project_id, actor="human:ann")
    bob = await make_key(admin_pool, team.id, project_id=team.project_id, actor="human:bob")
    session = await make_session(admin_pool, team, content_session_id="s")
    turns = ["We had soup for lunch", "The zebra salary is seven hundred", "Then everybody went home"]
    ids = [(await write(http, ann, content=turn, serverSessionId=session))["id"] for turn in turns]
    await merge_all(admin_pool, runtime_pool)

    async def found(query: str) -> set[str]:
        answer = await http.post("/v1/search", json={"query": query}, headers=bob.headers)
        assert answer.status_code == 200, answer.text
        return {memory["content"] for memory in answer.json()["observations"]}

    assert await found("zebra salary seven hundred") == set(turns)
    answer = await patch(http, ann, ids[1], **change)
    assert answer.status_code == 200, answer.text
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_purges") == 1
    assert await found("zebra salary seven hundred") == set()
    assert await found("soup for lunch yesterday home") >= {turns[0], turns[2]}
