"""What a question names beside its words: who said it, and when."""

from datetime import UTC, datetime
from uuid import UUID

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_memory, make_team
from tests.index_audit import audit_index
from tests.integration.runtime.api.memories import patch


async def make_world(admin_pool: Pool) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    return team, await make_key(admin_pool, team.id, project_id=team.project_id)


async def found(http: httpx2.AsyncClient, key: Key, query: str) -> list[str]:
    answer = await http.post("/v1/search", json={"query": query}, headers=key.headers)
    assert answer.status_code == 200, answer.text
    return [observation["content"] for observation in answer.json()["observations"]]


@pytest.mark.parametrize("actor", ["human:lena", "human:Lena.Fischer@shop.example"])
async def test_what_a_person_wrote_is_found_by_their_name(
    http: httpx2.AsyncClient, admin_pool: Pool, actor: str
) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader should use batches", owner_actor=actor)
    await make_memory(admin_pool, team, "The uploader should use streams", owner_actor="human:omar")
    await make_memory(admin_pool, team, "Two cables were replaced", owner_actor="human:omar")
    assert (await found(http, key, "what does Lena want for the uploader"))[0] == "The uploader should use batches"
    assert await found(http, key, "Lena") == ["The uploader should use batches"]


async def test_whoever_is_called_like_a_common_word_is_not_named_by_it(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    long = "The pilot changes at noon, which the harbour wrote"
    await make_memory(admin_pool, team, long, owner_actor="human:will")
    await make_memory(admin_pool, team, "The pilot changes at noon", owner_actor="human:omar")
    assert (await found(http, key, "will the pilot change at noon"))[0] == "The pilot changes at noon"
    assert (await found(http, key, "what did Will say of the pilot at noon"))[0] == long


async def test_an_agent_is_called_after_its_trade_which_finds_nothing(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "Two cables were replaced", owner_actor="agent:uploader")
    assert await found(http, key, "uploader") == []


async def test_an_author_in_the_metadata_counts_and_changes_with_it(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory_id = await make_memory(admin_pool, team, "Two cables were replaced", metadata={"author": "Yuki Tanaka"})
    await make_memory(admin_pool, team, "Two lamps were replaced", metadata={"author": ["Yuki"], "room": 7})
    assert await found(http, key, "Yuki") == ["Two cables were replaced"]

    answer = await patch(http, key, memory_id, metadata={"author": "Pavel"})
    assert answer.status_code == 200, answer.text
    assert await found(http, key, "Yuki") == []
    assert await found(http, key, "pavel") == ["Two cables were replaced"]
    assert await audit_index(admin_pool) == {"merged": 0, "tail": 2}


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("what broke the uploader in March 2025", "The uploader broke: disk full"),
        ("what broke the uploader in 2024", "The uploader broke: clock wrong"),
        ("what broke the uploader in July", "The uploader broke: clock wrong"),
    ],
)
async def test_a_memory_of_the_time_that_is_named_comes_first(
    http: httpx2.AsyncClient, admin_pool: Pool, query: str, first: str
) -> None:
    team, key = await make_world(admin_pool)
    times = {
        "The uploader broke: clock wrong": datetime(2024, 7, 3, tzinfo=UTC),
        "The uploader broke: disk full": datetime(2025, 3, 9, tzinfo=UTC),
        "The uploader broke: no network": datetime(2026, 1, 5, tzinfo=UTC),
    }
    for content, at in times.items():
        memory_id = await make_memory(admin_pool, team, content)
        await admin_pool.execute("UPDATE commonplace.memories SET created_at = $2 WHERE id = $1", UUID(memory_id), at)
    assert (await found(http, key, query))[0] == first
    assert sorted(await found(http, key, query)) == sorted(times)
