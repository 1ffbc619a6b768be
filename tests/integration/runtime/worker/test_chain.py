"""From an agent's event over HTTP to a memory that a question finds: api, Postgres, Redis and worker together."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from commonplace_runtime.embedded import EmbeddedRedis
from commonplace_runtime.entrypoints.doorbell import TaskiqDoorbell
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.conftest import Database
from tests.factories import make_key, make_team
from tests.integration.runtime.worker.support import started_worker, worker_settings


@pytest.fixture
async def http(admin_pool: Pool, database: Database, redis_server: EmbeddedRedis) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a good key of an api whose worker never polls within a test: only the doorbell can wake it."""
    settings = worker_settings(database, COMMONPLACE_REDIS_URL=redis_server.url, COMMONPLACE_WORKER_POLL_SECONDS="300")
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    bell = TaskiqDoorbell(redis_server.url)
    async with (
        started_worker(settings),
        served(create_app(settings, doorbell=bell)) as url,
        httpx2.AsyncClient(base_url=url, headers=key.headers, timeout=20) as client,
    ):
        yield client
    await bell.aclose()


def hook(event_type: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "projectId": "default",
        "sourceType": "hook",
        "eventType": event_type,
        "occurredAtEpoch": 1_795_219_200_000,
        "contentSessionId": "session-1",
        "platformSource": "claude",
        "payload": {"cwd": "/home/ada/shop", "platformSource": "claude", **payload},
    }


async def test_what_an_agent_saw_is_recalled_by_other_words(http: httpx2.AsyncClient) -> None:
    listing = {"tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_response": {"stdout": "README.md"}}
    path = "/home/ada/shop/src/retry.py"
    edit = {
        "tool_name": "Edit",
        "tool_input": {"file_path": path, "old_string": "LIMIT = 3", "new_string": "LIMIT = 12"},
        "tool_response": {"filePath": path},
    }
    said = "We decided to keep carts in Valkey because Postgres was too slow on Black Friday."
    events = [
        hook("tool_use", listing),
        hook("tool_use", edit),
        hook("assistant_message", {"last_assistant_message": said}),
    ]

    answer = await http.post("/v1/events/batch", params={"wait": "true"}, json=events)

    assert answer.status_code == 201, answer.text
    items = answer.json()["events"]
    assert [item["generationJob"]["status"] for item in items] == ["completed"] * 3
    assert "waitTimedOut" not in answer.json()
    found = await http.post("/v1/search", json={"projectId": "default", "query": "where are shopping carts stored?"})
    [best, *_] = found.json()["observations"]
    assert (best["kind"], best["metadata"]["generator"]) == ("decision", "extractive")
    assert "Valkey" in best["content"]
    assert [source["sourceId"] for source in best["sources"]] == [items[2]["event"]["id"]]


async def test_a_single_event_with_wait_is_answered_when_its_job_is_done(http: httpx2.AsyncClient) -> None:
    event = hook("assistant_message", {"last_assistant_message": "The gateway listens on port 9443."})

    answer = await http.post("/v1/events", params={"wait": "true"}, json=event)

    assert answer.json()["generationJob"]["status"] == "completed", answer.text
