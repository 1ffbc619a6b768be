"""Forgetting over HTTP: what goes, what stays, and who may."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from commonplace_runtime.domain.observations import Generated, SessionSummary
from commonplace_runtime.domain.retry import Failure
from commonplace_runtime.llm.ports import Batch, GenerationFailed
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_event, make_key, make_memory, make_project, make_team, set_limits
from tests.integration.runtime.worker.support import ScriptedGenerator, one_each, terms

MARKER = "flamingo-5433"
"""Planted wherever content may be."""

_COLUMNS = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = 'commonplace' AND data_type NOT IN ('uuid', 'boolean', 'integer', 'bigint', 'smallint', 'real',
        'numeric', 'date', 'timestamp with time zone')
    ORDER BY 1, 2
"""


async def places_of(admin_pool: Pool, marker: str = MARKER) -> set[str]:
    """Every column of the schema that holds the marker, as text, inside JSON, in a list or as bytes."""
    found = set()
    columns = await admin_pool.fetch(_COLUMNS)
    assert {"events.payload", "jobs.last_error", "memories.lexemes", "memories.sealed_secret", "memories.tags"} <= {
        f"{row['table_name']}.{row['column_name']}" for row in columns
    }
    for row in columns:
        column = f'"{row["column_name"]}"'
        holds = await admin_pool.fetchval(
            f'SELECT EXISTS (SELECT FROM commonplace."{row["table_name"]}" WHERE strpos({column}::text, $1) > 0'
            f" OR strpos({column}::text, encode(convert_to($1, 'UTF8'), 'hex')) > 0)",
            marker,
        )
        if holds:
            found.add(f"{row['table_name']}.{row['column_name']}")
    return found


@dataclass(frozen=True, kw_only=True)
class World:
    """A team with a project of which everything tells of the marker, and what of it there is."""

    team: Team
    key: Key
    session: str
    memories: Sequence[str]
    summary: str
    other: str
    """Of another session, about something else."""


def telling(batch: Batch) -> Generated:
    """A memory of each event, and a summary of all. What cannot be told apart fails as the event says."""
    if any("spoils" in str(event.payload) for event in batch.events):
        raise GenerationFailed(Failure(kind="poison", reason=f"no use for {MARKER}"))
    told = one_each(batch)
    words = str(batch.events[0].payload) if batch.events else MARKER
    return replace(told, summary=SessionSummary(request="Find the port", learned=words))


async def drain(pool: Pool) -> None:
    while (await run_group(pool, ScriptedGenerator(telling), terms())).kind != "idle":
        pass


async def send(http: httpx2.AsyncClient, key: Key, **fields: Any) -> dict[str, Any]:
    answer = await http.post("/v1/events", json=make_event(**fields), headers=key.headers)
    assert answer.status_code == 201, answer.text
    event: dict[str, Any] = answer.json()["event"]
    return event


async def search(http: httpx2.AsyncClient, key: Key, query: str) -> list[str]:
    answer = await http.post("/v1/search", json={"query": query}, headers=key.headers)
    assert answer.status_code == 200, answer.text
    return [found["id"] for found in answer.json()["observations"]]


async def forget(http: httpx2.AsyncClient, key: Key, **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/forget", json=body, headers=key.headers)
    assert answer.status_code == 200, answer.text
    forgotten: dict[str, Any] = answer.json()
    return forgotten


async def audited(admin_pool: Pool, action: str) -> list[dict[str, Any]]:
    rows = await admin_pool.fetch("SELECT * FROM commonplace.audit_log WHERE action = $1 ORDER BY number", action)
    return [dict(row) for row in rows]


async def count(admin_pool: Pool, table: str) -> int:
    return int(await admin_pool.fetchval(f"SELECT count(*) FROM commonplace.{table}"))


def reading(path: str, words: str) -> dict[str, Any]:
    return {"tool_name": "Read", "tool_input": {"file_path": path}, "tool_response": words, "cwd": "/src"}


async def make_world(http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool) -> World:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    started = await http.post(
        "/v1/sessions/start",
        json={
            "projectId": team.project_id,
            "externalSessionId": f"external {MARKER}",
            "contentSessionId": f"content {MARKER}",
            "agentId": f"agent {MARKER}",
            "platformSource": "claude-code",
            "metadata": {"prompt": f"Where is {MARKER}?"},
        },
        headers=key.headers,
    )
    session = started.json()["session"]["id"]
    linked = {"serverSessionId": session, "contentSessionId": f"content {MARKER}"}
    for number in range(2):
        await send(
            http,
            key,
            **linked,
            sourceEventId=f"{MARKER} {number}",
            metadata={"note": MARKER},
            payload=reading(f"/src/{MARKER}.py", f"{number}: {MARKER}"),
        )
    await send(http, key, **linked, payload={"text": f"this spoils {MARKER}"})
    await send(http, key, contentSessionId=f"unlinked {MARKER}", payload={"text": f"unlinked {MARKER}"})
    await drain(runtime_pool)
    await http.post(f"/v1/sessions/{session}/end", json={}, headers=key.headers)
    await drain(runtime_pool)
    await send(http, key, contentSessionId="another", payload={"text": "something else"})
    await drain(runtime_pool)
    await admin_pool.execute(
        "UPDATE commonplace.memories SET tags = $1, keywords = $1, sealed_secret = $2, metadata = metadata || $3"
        " WHERE strpos(content, $4) > 0",
        [MARKER],
        MARKER.encode(),
        {"files_read": [f"/src/{MARKER}.py"]},
        MARKER,
    )
    await admin_pool.execute("UPDATE commonplace.jobs SET payload = $1 WHERE session_id IS NOT NULL", {"note": MARKER})
    assert await search(http, key, MARKER)
    rows = await admin_pool.fetch(
        "SELECT m.id::text, kind, m.session_id, strpos(content, $1) > 0 AS tells FROM commonplace.memories m"
        " ORDER BY number",
        MARKER,
    )
    mine = [row["id"] for row in rows if row["session_id"] == UUID(session)]
    [summary] = [
        str(row["memory_id"])
        for row in await admin_pool.fetch(
            "SELECT memory_id FROM commonplace.memory_sources WHERE source_type = 'session_summary'"
        )
    ]
    [other] = [row["id"] for row in rows if not row["tells"]]
    return World(
        team=team,
        key=key,
        session=session,
        memories=[memory for memory in mine if memory != summary],
        summary=summary,
        other=other,
    )


async def test_a_purge_leaves_nothing_anywhere(http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool) -> None:
    world = await make_world(http, admin_pool, runtime_pool)
    assert {
        "audit_log.details",
        "events.content_session_id",
        "events.metadata",
        "events.payload",
        "events.source_event_id",
        "job_groups.session_key",
        "job_groups.state",
        "jobs.last_error",
        "jobs.payload",
        "jobs.session_key",
        "memories.content",
        "memories.keywords",
        "memories.lexemes",
        "memories.metadata",
        "memories.sealed_secret",
        "memories.tags",
        "memories.title",
        "sessions.agent_id",
        "sessions.content_session_id",
        "sessions.external_session_id",
        "sessions.metadata",
    } <= await places_of(admin_pool)
    before = {table: await count(admin_pool, table) for table in ("events", "jobs", "memories", "memory_sources")}
    rows = await count(admin_pool, "audit_log")
    await http.post("/v1/search", json={"query": f"nothing has {MARKER}"}, headers=world.key.headers)

    answer = await http.delete("/v1/projects/default/memory", headers=world.key.headers)

    assert await places_of(admin_pool) == set()
    body = answer.json()
    assert (answer.status_code, body["purged"], body["projectId"]) == (200, True, world.team.project_id)
    assert body["counts"] == {
        "observations": before["memories"],
        "agentEvents": before["events"],
        "sessions": 1,
        "jobs": before["jobs"],
    }
    for table in ("events", "jobs", "job_groups", "sessions", "memories", "memory_sources", "erasure_items"):
        assert await count(admin_pool, table) == 0, table
    assert await count(admin_pool, "audit_log") == rows + 2
    [purged] = await audited(admin_pool, "project.memory_purged")
    assert purged["details"]["counts"] == body["counts"] | {
        "summaries": 1,
        "sources": before["memory_sources"],
        "auditRows": rows + 1,
    }
    assert (str(purged["project_id"]), purged["resource_id"]) == (world.team.project_id, world.team.project_id)
    assert purged["details"]["requestId"] == answer.headers["x-request-id"] == purged["request_id"]
    assert (await http.get("/v1/connect", headers=world.key.headers)).status_code == 200
    [erasure] = await admin_pool.fetch("SELECT phase, selection, lease_until FROM commonplace.erasures")
    assert dict(erasure) == {"phase": "done", "selection": {}, "lease_until": None}


async def test_a_session_goes_with_its_prompts_jobs_and_state(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    world = await make_world(http, admin_pool, runtime_pool)
    unlinked = {"contentSessionId": f"unlinked {MARKER}"}
    foreseen = await forget(http, world.key, serverSessionId=world.session, dryRun=True)

    forgotten = await forget(http, world.key, serverSessionId=world.session)

    assert forgotten["counts"] == foreseen["counts"]
    assert forgotten["counts"] | {"auditRows": 0} == {
        "observations": 3,
        "summaries": 1,
        "agentEvents": 3,
        "sessions": 1,
        "jobs": 4,
        "sources": 3,
        "auditRows": 0,
    }
    assert (await http.get(f"/v1/sessions/{world.session}", headers=world.key.headers)).status_code == 404
    assert {memory["id"] for memory in forgotten["memories"]} == {*world.memories, world.summary}
    assert (await forget(http, world.key, **unlinked))["counts"]["agentEvents"] == 1
    assert await places_of(admin_pool) == set()
    assert await search(http, world.key, "something else") == [world.other]
    again = await http.post("/v1/forget", json={"serverSessionId": world.session}, headers=world.key.headers)
    assert (again.status_code, again.json()["message"]) == (404, "Session not found")


async def test_one_memory_goes_with_its_event_job_and_whatever_repeats_it(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    world = await make_world(http, admin_pool, runtime_pool)
    event = await admin_pool.fetchval(
        "SELECT event_id::text FROM commonplace.memory_sources WHERE memory_id = $1", UUID(world.memories[0])
    )
    assert (await http.get(f"/v1/events/{event}", headers=world.key.headers)).status_code == 200
    foreseen = await forget(http, world.key, memoryId=world.memories[0], dryRun=True)

    answer = await http.delete(f"/v1/memories/{world.memories[0]}", headers=world.key.headers)

    assert answer.status_code == 200, answer.text
    assert answer.json() == {"deleted": True, "id": world.memories[0]}
    assert foreseen["counts"] | {"auditRows": 0} == {
        "observations": 2,
        "summaries": 1,
        "agentEvents": 1,
        "sessions": 0,
        "jobs": 2,
        "sources": 2,
        "auditRows": 0,
    }
    assert (await http.get(f"/v1/events/{event}", headers=world.key.headers)).status_code == 404
    left = await admin_pool.fetch("SELECT id::text FROM commonplace.memories ORDER BY number")
    assert world.summary not in {row["id"] for row in left}
    assert {world.memories[1], world.other} <= {row["id"] for row in left}
    states = await admin_pool.fetch("SELECT state FROM commonplace.job_groups WHERE session_id IS NOT NULL")
    assert [row["state"] for row in states] == [{}]
    [deleted] = await audited(admin_pool, "observation.deleted")
    assert (deleted["resource_id"], deleted["details"]["via"]) == (world.memories[0], "api")
    assert {"sessions": 0} | deleted["details"]["counts"] == foreseen["counts"]
    assert (await http.delete(f"/v1/memories/{world.memories[0]}", headers=world.key.headers)).json() == {
        "error": "not_found"
    }
    # The rest of what tells of it, one by one.
    for memory in (await forget(http, world.key, query=MARKER, limit=100, dryRun=True))["memories"]:
        await http.delete(f"/v1/memories/{memory['id']}", headers=world.key.headers)
    assert await search(http, world.key, MARKER) == []


async def test_whoever_read_it_is_audited_without_what_was_asked(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    memory = await make_memory(admin_pool, team, f"The port is {MARKER}")
    other = await make_memory(admin_pool, team, "The uploader retries")
    assert await search(http, key, MARKER) == [memory]
    assert await search(http, key, "uploader") == [other]
    [about, elsewhere] = await audited(admin_pool, "observation.read")

    await http.delete(f"/v1/memories/{memory}", headers=key.headers)

    rows = await audited(admin_pool, "observation.read")
    assert rows[1] == elsewhere
    assert rows[0]["details"] == {
        "erased": True,
        "mode": "search",
        "limit": 20,
        "resultCount": 1,
        "requestId": about["request_id"],
    }
    assert {**rows[0], "details": 0} == {**about, "details": 0}


async def test_a_file_goes_by_its_path_or_the_end_of_it(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    world = await make_world(http, admin_pool, runtime_pool)
    await send(http, world.key, payload=reading(f"/src/not-{MARKER}.py", "another file"))
    windows = await make_memory(
        admin_pool, world.team, "of Windows", metadata={"filesModified": [f"C:\\src\\{MARKER}.py"]}
    )
    named = await send(http, world.key, payload={"tool_name": "X", "tool_input": {"paths": [f"./{MARKER}.py"]}})
    foreseen = await forget(http, world.key, file=f"./{MARKER}.py", dryRun=True)

    forgotten = await forget(http, world.key, file=f"{MARKER}.py")

    assert forgotten["counts"] == foreseen["counts"]
    assert {memory["id"] for memory in forgotten["memories"]} >= {*world.memories, world.summary, windows}
    assert world.other not in {memory["id"] for memory in forgotten["memories"]}
    left = [row["payload"] for row in await admin_pool.fetch("SELECT payload FROM commonplace.events")]
    assert all(f"/{MARKER}.py" not in str(payload) for payload in left)
    assert any("another file" in str(payload) for payload in left)
    assert (await http.get(f"/v1/events/{named['id']}", headers=world.key.headers)).status_code == 404
    assert (await forget(http, world.key, file="src"))["counts"]["agentEvents"] == 0


async def test_a_query_takes_no_more_of_its_best_hits_than_it_may(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    for number in range(25):
        await make_memory(admin_pool, team, f"uploader run {number}")
    await make_memory(admin_pool, team, "The uploader uploader uploader", title="uploader")

    best = await forget(http, key, query="uploader", limit=1)
    usual = await forget(http, key, query="uploader")
    audit = await audited(admin_pool, "memory.forgotten")

    assert [memory["title"] for memory in best["memories"]] == ["uploader"]
    assert (usual["counts"]["observations"], len(usual["memories"]), usual["dryRun"]) == (20, 20, False)
    assert await count(admin_pool, "memories") == 5
    assert [row["resource_id"] for row in audit] == [best["erasureId"], usual["erasureId"]]
    assert "uploader" not in str([row["details"] for row in audit])
    nothing = await forget(http, key, query="zebra")
    assert (nothing["counts"]["observations"], nothing["memories"]) == (0, [])


async def test_a_dry_run_writes_nothing_but_that_somebody_looked(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    world = await make_world(http, admin_pool, runtime_pool)
    tables = [
        row["table_name"]
        for row in await admin_pool.fetch("SELECT DISTINCT table_name FROM information_schema.columns"
                                          " WHERE table_schema = 'commonplace'")
    ]  # fmt: skip

    async def contents() -> dict[str, Any]:
        return {
            table: await admin_pool.fetchval(f"SELECT array_agg(t::text ORDER BY t::text) FROM commonplace.{table} t")
            for table in tables
            if table not in ("api_keys", "audit_log")
        }

    before, rows = await contents(), await count(admin_pool, "audit_log")
    for selection in (
        {"memoryId": world.memories[0]},
        {"query": MARKER},
        {"serverSessionId": world.session},
        {"contentSessionId": f"content {MARKER}"},
        {"file": f"{MARKER}.py"},
        {"projectId": "default"},
    ):
        answer = await forget(http, world.key, dryRun=True, **selection)
        assert (answer["dryRun"], answer["erasureId"]) == (True, None)
        assert answer["counts"]["observations"] > 0, selection

    assert await contents() == before
    previews = await audited(admin_pool, "memory.forget_previewed")
    assert (len(previews), await count(admin_pool, "audit_log")) == (6, rows + 6)
    assert MARKER not in str([row["details"] for row in previews])


async def test_a_dry_run_of_a_project_foresees_its_purge(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    world = await make_world(http, admin_pool, runtime_pool)
    foreseen = await forget(http, world.key, projectId="default", dryRun=True)
    assert (await forget(http, world.key, projectId="default"))["counts"] == foreseen["counts"]


async def test_what_others_keep_private_is_neither_touched_nor_told_of(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    world = await make_world(http, admin_pool, runtime_pool)
    secret = await make_memory(
        admin_pool,
        world.team,
        f"private {MARKER}",
        title="private",
        visibility="private",
        owner_actor="human:grace",
        metadata={"files_read": [f"/src/{MARKER}.py"]},
    )
    await admin_pool.execute(
        "UPDATE commonplace.memories SET session_id = $2 WHERE id = $1", UUID(secret), UUID(world.session)
    )
    row = "SELECT to_jsonb(m) - 'session_id' FROM commonplace.memories m WHERE id = $1"
    before = await admin_pool.fetchval(row, UUID(secret))

    for dry_run in (True, False):
        answer = await http.post("/v1/forget", json={"memoryId": secret, "dryRun": dry_run}, headers=world.key.headers)
        assert (answer.status_code, answer.json()["message"]) == (404, "Memory not found")
        for selection in (
            {"file": f"{MARKER}.py"},
            {"query": MARKER, "limit": 100},
            {"serverSessionId": world.session},
        ):
            answered = await forget(http, world.key, dryRun=dry_run, **selection)
            assert secret not in str(answered)
    assert (await http.delete(f"/v1/memories/{secret}", headers=world.key.headers)).json() == {"error": "not_found"}

    assert await admin_pool.fetchval(row, UUID(secret)) == before
    grace = await make_key(admin_pool, world.team.id, actor="human:grace")
    assert await search(http, grace, MARKER) == [secret]
    preview = await forget(http, world.key, projectId="default", dryRun=True)
    assert secret not in str(preview["memories"])
    await forget(http, world.key, projectId="default")
    assert await search(http, grace, MARKER) == []


async def test_nothing_of_another_team_or_project_is_reached(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    memory = await make_memory(admin_pool, team, "ours", project_id=sibling)
    session = await admin_pool.fetchval(
        "INSERT INTO commonplace.sessions (id, team_id, project_id) VALUES ($1, $2, $3) RETURNING id::text",
        uuid4(),
        UUID(team.id),
        UUID(sibling),
    )
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    other = await make_team(admin_pool)
    foreign = await make_key(admin_pool, other.id)

    for key in (bound, foreign):
        for name in (memory, str(uuid4()), "no-uuid", "a%00b"):
            answer = await http.delete(f"/v1/memories/{name}", headers=key.headers)
            assert (answer.status_code, answer.json()) == (404, {"error": "not_found"})
    for name in (sibling, "sibling", str(uuid4()), "no such"):
        assert (await http.delete(f"/v1/projects/{name}/memory", headers=bound.headers)).status_code == 403
        answer = await http.delete(f"/v1/projects/{name}/memory", headers=foreign.headers)
        assert (answer.status_code, answer.json()) == (404, {"error": "not_found"})
    for body, statuses in (
        ({"memoryId": memory}, (404, 404)),
        ({"serverSessionId": session}, (403, 404)),
        ({"projectId": sibling}, (403, 404)),
        ({"projectId": sibling, "query": "ours"}, (403, 404)),
        ({"projectId": "sibling", "file": "a.py"}, (403, 404)),
    ):
        answers = [await http.post("/v1/forget", json=body, headers=key.headers) for key in (bound, foreign)]
        assert tuple(answer.status_code for answer in answers) == statuses, body
    assert await count(admin_pool, "memories") == 1
    assert await count(admin_pool, "sessions") == 1
    assert await count(admin_pool, "erasures") == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"memoryId": "00000000-0000-4000-8000-000000000001", "query": "a"},
        {"serverSessionId": "a", "contentSessionId": "b"},
        {"query": ""},
        {"query": "a", "limit": 101},
        {"query": "a", "limit": 0},
        {"query": 7},
        {"query": "a", "dryRun": "yes"},
        {"dryRun": True},
    ],
    ids=str,
)
async def test_what_is_not_one_selection_is_refused(
    http: httpx2.AsyncClient, admin_pool: Pool, body: dict[str, Any]
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await make_memory(admin_pool, team, "a b yes")
    answer = await http.post("/v1/forget", json=body, headers=key.headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "ValidationError")
    assert await count(admin_pool, "memories") == 1


@pytest.mark.parametrize("words", ["\x00", "\ud800 zebra", "<private>uploader</private>", "'\\ & ! <->", "./"])
async def test_odd_words_are_no_fault_and_no_wildcard(http: httpx2.AsyncClient, admin_pool: Pool, words: str) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await make_memory(admin_pool, team, "a memory", metadata={"files_read": ["/a/", "/b.py", ""]})
    for field in ("query", "file", "memoryId", "serverSessionId", "contentSessionId", "projectId"):
        headers = {**key.headers, "content-type": "application/json"}
        answer = await http.post("/v1/forget", content=json.dumps({field: words}), headers=headers)
        assert answer.status_code == (200 if field in ("query", "file") else 404), field
    assert await count(admin_pool, "memories") == 1


async def test_only_who_may_write_may_forget_and_no_cap_forbids_it(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    memory = await make_memory(admin_pool, team, "a memory")
    reader = await make_key(admin_pool, team.id, scopes=("memories:read", "events:write"))
    writer = await make_key(admin_pool, team.id, scopes=("memories:write",))
    await set_limits(admin_pool, team.id, requests_per_month=0, tokens_per_month=0)

    for method, path in (
        ("DELETE", f"/v1/memories/{memory}"),
        ("DELETE", "/v1/projects/default/memory"),
        ("POST", "/v1/forget"),
    ):
        assert (await http.request(method, path, headers=reader.headers)).status_code == 403
    assert (await http.delete(f"/v1/memories/{memory}", headers=writer.headers)).status_code == 200
    assert (await forget(http, writer, projectId="default"))["dryRun"] is False
    assert (await http.delete("/v1/projects/default/memory", headers=writer.headers)).status_code == 200


async def test_a_memory_that_replaced_another_goes_and_the_other_stands_again(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    newer = await make_memory(admin_pool, team, "The uploader retries twice")
    older = await make_memory(admin_pool, team, "The uploader retries once", superseded_by=newer)
    assert await search(http, key, "uploader") == [newer]
    await http.delete(f"/v1/memories/{newer}", headers=key.headers)
    assert await search(http, key, "uploader") == [older]


async def test_another_memory_of_the_same_event_stays_without_the_link(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    event = await send(http, key)
    gone, stays = [await make_memory(admin_pool, team, text, event_id=event["id"]) for text in ("first", "second")]
    await http.delete(f"/v1/memories/{gone}", headers=key.headers)
    assert await search(http, key, "second") == [stays]
    assert await count(admin_pool, "memory_sources") == await count(admin_pool, "events") == 0
