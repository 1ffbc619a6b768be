"""GET /v1/export and POST /v1/import, over a real connection."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from commonplace_runtime.entrypoints.http import streams
from commonplace_runtime.entrypoints.http.protocol import BoundedHttp
from commonplace_runtime.ids import uuid7
from commonplace_runtime.services import export as export_service
from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_memory, make_project, make_session, make_team, set_limits

HEADER = {"type": "header", "format": "commonplace", "version": 1}
NDJSON = {"Content-Type": "application/x-ndjson"}
RECORDS = ("session", "event", "memory")


def ndjson(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def memory(content: str, **changes: Any) -> dict[str, Any]:
    return {"type": "memory", "id": str(uuid7()), "content": content} | changes


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def records(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["type"] in RECORDS]


async def exported(http: httpx2.AsyncClient, key: Key, query: str = "") -> list[dict[str, Any]]:
    answer = await http.get(f"/v1/export{query}", headers=key.headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return read(answer.text)


async def imported(http: httpx2.AsyncClient, key: Key, body: Any, query: str = "", **headers: str) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else ndjson(body)
    answer = await http.post(f"/v1/import{query}", content=content, headers={**key.headers, **NDJSON, **headers})
    assert answer.status_code == 200, answer.text
    summary: dict[str, Any] = answer.json()
    return summary


def counts(summary: dict[str, Any]) -> dict[str, int]:
    names = ("imported", "updated", "unchanged", "skipped", "failed")
    return {name: summary[name] for name in names if summary[name]}


async def contents(pool: Pool, team: Team) -> list[str]:
    rows = await pool.fetch(
        "SELECT content FROM commonplace.memories WHERE team_id = $1 ORDER BY number", UUID(team.id)
    )
    return [row["content"] for row in rows]


async def fill(pool: Pool, team: Team, memories: int) -> None:
    """A session, an event in it, and memories with all that a row may carry; each tenth is superseded by the next."""
    session = await make_session(pool, team, content_session_id="c", platform="claude")
    event_id = uuid7()
    await pool.execute(
        "INSERT INTO commonplace.events (id, team_id, project_id, session_id, content_session_id, source_adapter,"
        " idempotency_key, event_type, actor, payload, occurred_at) VALUES ($1, $2, $3, $4, 'c', 'hook', $5,"
        " 'tool_use', 'agent:tester', $6, '2026-05-01T10:00:00.123Z')",
        event_id,
        UUID(team.id),
        UUID(team.project_id),
        UUID(session),
        str(event_id),
        {"big": 2**63, "text": "naïve ☃", "list": [1, 1.5, None]},
    )
    await pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, session_id, owner_actor, visibility, kind, title,"
        " content, metadata, tags, keywords, importance, valid_from, model, created_at, updated_at)"
        " SELECT md5($1::text || n)::uuid, $1::text::uuid, $2, $3, 'agent:tester',"
        " CASE n % 7 WHEN 0 THEN 'private' ELSE 'team' END, 'decision',"
        " CASE n % 3 WHEN 0 THEN NULL ELSE 'Title ' || n END, 'Content ' || n || E' \\n\\t\"quoted\" ☃',"
        " jsonb_build_object('n', n, 'facts', jsonb_build_array('a', n)), ARRAY['tag', 't' || n], ARRAY['word'], 0.7,"
        " '2026-01-01Z', 'small', '2026-05-01Z'::timestamptz + n * interval '1 second', '2026-06-01Z'"
        " FROM generate_series(1, $4::integer) AS n",
        team.id,
        UUID(team.project_id),
        UUID(session),
        memories,
    )
    await pool.execute(
        "UPDATE commonplace.memories SET superseded_by = md5($1::text || ((metadata ->> 'n')::int + 1))::uuid"
        " WHERE team_id = $1::text::uuid AND (metadata ->> 'n')::int % 10 = 1 AND (metadata ->> 'n')::int < $2",
        team.id,
        memories,
    )
    await pool.execute(
        "INSERT INTO commonplace.memory_sources (memory_id, team_id, source_type, source_id, event_id)"
        " SELECT id, team_id, 'agent_event', $2, $2 FROM commonplace.memories WHERE team_id = $1",
        UUID(team.id),
        event_id,
    )


@pytest.mark.parametrize("include", ["", "?include=sessions,events,memories,sources"])
async def test_five_thousand_memories_come_back_the_same(
    http: httpx2.AsyncClient, admin_pool: Pool, include: str
) -> None:
    team = await make_team(admin_pool)
    await fill(admin_pool, team, 5000)
    key = await make_key(admin_pool, team.id)
    first = await exported(http, key, include)
    assert (first[0]["type"], first[0]["version"], first[-1]["type"]) == ("header", 1, "end")
    assert first[-1]["counts"]["memory"] == 5000
    await admin_pool.execute("DELETE FROM commonplace.teams WHERE id = $1", UUID(team.id))
    other = await make_team(admin_pool)
    other_key = await make_key(admin_pool, other.id)

    summary = await imported(http, other_key, first)

    assert counts(summary) == {"imported": len(records(first))}
    assert (summary["complete"], summary["nextLine"]) == (True, len(first) + 1)
    second = await exported(http, other_key, include)
    assert records(second) == records(first)
    assert second[-1]["counts"] == first[-1]["counts"]
    assert sum(1 for line in second if line.get("supersededBy")) == 500
    before = await contents(admin_pool, other)
    assert counts(await imported(http, other_key, first)) == {"unchanged": len(records(first))}
    assert await contents(admin_pool, other) == before


async def test_a_copy_beside_the_original_gets_ids_of_its_own_and_keeps_its_links(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    await fill(admin_pool, team, 30)
    lines = await exported(http, await make_key(admin_pool, team.id), "?include=sessions,events,memories,sources")
    theirs = await make_key(admin_pool, other.id)
    original = await contents(admin_pool, team)

    assert counts(await imported(http, theirs, lines)) == {"imported": 32}
    assert counts(await imported(http, theirs, lines)) == {"unchanged": 32}

    copy = records(await exported(http, theirs, "?include=sessions,events,memories,sources"))
    ids = {old["id"]: new["id"] for old, new in zip(records(lines), copy, strict=True)}
    assert not set(ids) & set(ids.values())
    text = json.dumps(records(lines))
    for old, new in ids.items():
        text = text.replace(old, new)
    assert json.loads(text) == copy
    assert await contents(admin_pool, team) == original
    linked = "SELECT count(*) FROM commonplace.memory_sources WHERE team_id = $1 AND event_id IS NOT NULL"
    assert await admin_pool.fetchval(linked, UUID(other.id)) == 30


async def test_a_row_of_another_team_is_neither_seen_nor_changed(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    theirs = await make_memory(admin_pool, team, "theirs")
    attacker = await make_key(admin_pool, other.id, scopes=("*",))
    line = memory("mine", id=theirs, updatedAtEpoch=4_000_000_000_000, actor="agent:tester")
    pointer = memory("pointer", supersededBy=theirs, sources=[{"sourceType": "agent_event", "sourceId": theirs}])

    assert counts(await imported(http, attacker, [HEADER, line, pointer])) == {"imported": 2}
    assert counts(await imported(http, attacker, [HEADER, line, pointer])) == {"unchanged": 2}

    assert await contents(admin_pool, team) == ["theirs"]
    found = {row["content"]: row for row in records(await exported(http, attacker))}
    assert found["mine"]["id"] != theirs
    assert found["pointer"]["supersededBy"] == found["mine"]["id"]


async def test_private_memories_and_sibling_projects_stay_out_of_reach(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    await make_memory(admin_pool, team, "team's")
    own = await make_memory(admin_pool, team, "own", visibility="private", owner_actor="agent:me")
    foreign = await make_memory(admin_pool, team, "foreign", visibility="private", owner_actor="agent:you")
    beside = await make_memory(admin_pool, team, "beside", project_id=sibling)
    bound = await make_key(admin_pool, team.id, project_id=team.project_id, actor="agent:me", scopes=("*",))
    free = await make_key(admin_pool, team.id, actor="agent:me")

    assert {line["content"] for line in records(await exported(http, bound))} == {"team's", "own"}
    assert {line["content"] for line in records(await exported(http, free))} == {"team's", "own", "beside"}
    assert {line["content"] for line in records(await exported(http, free, "?projectId=sibling"))} == {"beside"}
    assert (await http.get("/v1/export?projectId=sibling", headers=bound.headers)).status_code == 403
    assert (await http.get("/v1/export?projectId=nowhere", headers=free.headers)).status_code == 404
    assert (await http.post("/v1/import?projectId=sibling", content=ndjson([HEADER, memory("x")]),
            headers=bound.headers | NDJSON)).status_code == 403  # fmt: skip

    late = {"updatedAtEpoch": 4_000_000_000_000}
    lines = [memory(f"over {one}", id=one, project="sibling", **late) for one in (own, foreign, beside)]
    assert counts(await imported(http, bound, [HEADER, *lines])) == {"updated": 1, "imported": 2}
    kept = {"team's", "foreign", "beside", f"over {own}", f"over {foreign}", f"over {beside}"}
    assert set(await contents(admin_pool, team)) == kept
    rows = await admin_pool.fetch(
        "SELECT content, visibility, owner_actor FROM commonplace.memories WHERE id = $1", UUID(own)
    )
    assert [tuple(row) for row in rows] == [(f"over {own}", "private", "agent:me")]


async def test_who_owns_what_is_imported(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    lines = [HEADER, memory("hers", actor="human:alice", visibility="private"), memory("all's", actor="human:alice")]
    writer = await make_key(admin_pool, team.id, actor="agent:me")
    admin = await make_key(admin_pool, other.id, actor="agent:root", scopes=("memories:write", "memories:admin"))
    await imported(http, writer, lines)
    await imported(http, admin, lines)
    rows = await admin_pool.fetch(
        "SELECT team_id::text, owner_actor, visibility FROM commonplace.memories ORDER BY number"
    )
    assert [tuple(row) for row in rows] == [
        (team.id, "agent:me", "private"),
        (team.id, "agent:me", "team"),
        (other.id, "human:alice", "private"),
        (other.id, "human:alice", "team"),
    ]


async def test_a_newer_memory_here_is_kept_and_an_older_one_brought_up_to_date(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    line = memory("first", createdAtEpoch=1_700_000_000_000, updatedAtEpoch=1_700_000_000_000)
    assert counts(await imported(http, key, [HEADER, line])) == {"imported": 1}
    newer = line | {"content": "second", "updatedAtEpoch": 1_700_000_000_001}
    assert counts(await imported(http, key, [HEADER, newer])) == {"updated": 1}
    assert counts(await imported(http, key, [HEADER, newer])) == {"unchanged": 1}
    assert counts(await imported(http, key, [HEADER, line])) == {"skipped": 1}
    assert await contents(admin_pool, team) == ["second"]


async def test_successors_are_linked_whatever_comes_first_and_never_in_a_circle(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    a, b, c, d = (str(uuid7()) for _ in range(4))
    early = [HEADER, memory("a", id=a, supersededBy=b), memory("d", id=d, supersededBy=d)]
    assert counts(await imported(http, key, early)) == {"imported": 2}
    assert counts(await imported(http, key, early)) == {"unchanged": 2}
    late = [HEADER, memory("b", id=b, supersededBy=c), memory("c", id=c, supersededBy=a)]
    assert counts(await imported(http, key, late)) == {"imported": 2}
    found = {line["id"]: line["supersededBy"] for line in records(await exported(http, key))}
    assert found == {a: b, b: None, c: a, d: None}
    assert await admin_pool.fetchval("SELECT wanted FROM commonplace.awaited_links WHERE memory_id = $1", UUID(b)) == c


async def test_a_session_goes_on_under_its_name(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    key, theirs = await make_key(admin_pool, team.id), await make_key(admin_pool, other.id)
    start = {"projectId": "default", "externalSessionId": "run-1", "platformSource": "codex"}
    assert (await http.post("/v1/sessions/start", json=start, headers=key.headers)).status_code == 201
    lines = await exported(http, key, "?include=sessions")
    assert counts(await imported(http, theirs, lines)) == {"imported": 1}
    again = await http.post("/v1/sessions/start", json=start, headers=theirs.headers)
    (copy,) = records(await exported(http, theirs, "?include=sessions"))
    assert (again.status_code, again.json()["session"]["id"]) == (200, copy["id"])


async def test_everything_is_cleaned_and_names_make_projects(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    secret = "ghp_" + "a1B2" * 9
    dirty = memory(
        f"token {secret} <private>gone</private>nul \0 lone \ud800",
        title=f"<private>t</private>{secret}",
        tags=[secret, "a\0b"],
        metadata={"password": "hunter2hunter2", "k\0": "v"},
        project="fresh",
        id="not a uuid \0",
    )
    body = ndjson([HEADER, dirty])
    assert counts(await imported(http, key, body)) == {"imported": 1}
    assert counts(await imported(http, key, body)) == {"unchanged": 1}
    (line,) = records(await exported(http, key, "?projectId=fresh"))
    text = json.dumps(line, ensure_ascii=False)
    assert secret not in text
    assert "hunter2" not in text
    assert "gone" not in text
    assert "\ufffd" in line["content"]
    action = "SELECT count(*) FROM commonplace.audit_log WHERE action = 'project.create'"
    assert await admin_pool.fetchval(action) == 1


async def test_a_wrong_line_is_told_with_its_number_and_loses_no_other(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    wrong = {
        3: b"{broken",
        4: b"[1, 2]",
        5: b'{"type":"memory","content":7}',
        6: b'{"type":"memory"}',
        7: b'{"type":"spell","content":"x"}',
        8: b'{"type":"memory","content":"x","importance":2}',
        9: b'{"type":"memory","content":"x","createdAtEpoch":1e300}',
        10: b'{"type":"memory","content":"x","createdAtEpoch":999999999999999}',
        11: b'{"type":"memory","content":"x","metadata":' + b'{"a":' * 300 + b"1" + b"}" * 301,
        12: b'{"type":"memory","content":"x","metadata":{"a":' + b"[" * 100_000,
        13: b'{"type":"memory","content":"' + b"x" * (10 * 1024 * 1024) + b'"}',
        14: b'{"type":"memory","content":"x","metadata":{"a":[' + b"[]," * 250_000 + b"1]}}",
        15: b'{"type":"memory","content":"x","visibility":"secret"}',
        16: b'{"type":"header","format":"commonplace","version":2}',
        17: b'{"type":"event","eventType":"x"}',
        18: b'{"type":"memory","content":"x","sources":[{"sourceType":"agent_event"}]}',
        19: b'{"type":"memory","content":"x","project":"' + b"p" * 201 + b'"}',
        20: b'{"type":"memory","content":"x","metadata":{"a":NaN}}',
        21: b"\xff\xfe\x00",
    }
    fine = ndjson([memory("fine")])
    body = ndjson([HEADER]) + b"\r\n" + b"\n".join(wrong.values()) + b"\n\n  \n" + fine.strip()

    summary = await imported(http, key, body)

    assert counts(summary) == {"imported": 1, "failed": len(wrong)}
    assert [fault["line"] for fault in summary["errors"]] == list(wrong)
    assert all(fault["message"] for fault in summary["errors"])
    assert summary["errors"][10]["message"] == "the line is longer than 8 MiB"
    assert (summary["complete"], summary["nextLine"]) == (False, 25)
    assert await contents(admin_pool, team) == ["fine"]


async def test_what_postgres_refuses_does_not_take_its_batch_along(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    lines = [HEADER, memory("one"), memory("no real number", importance=1e-60), memory("two")]
    summary = await imported(http, key, lines)
    assert counts(summary) == {"imported": 2, "failed": 1}
    assert summary["errors"][0]["line"] == 3
    assert await contents(admin_pool, team) == ["one", "two"]


@pytest.mark.parametrize(
    ("first", "hint"),
    [
        ({"type": "memory", "content": "x"}, "the first line must be a header"),
        ({"type": "header", "format": "commonplace", "version": 2}, "this server reads version 1"),
        ({"type": "header", "format": "commonplace", "version": True}, "this server reads version 1"),
        ({"type": "header", "format": "other", "version": 1}, "unknown format 'other'"),
        ([], "the first line must be a header"),
        (None, "the first line must be a header"),
    ],
)
async def test_without_a_header_that_is_known_nothing_is_stored(
    http: httpx2.AsyncClient, admin_pool: Pool, first: Any, hint: str
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    body = b"" if first is None else ndjson([first, memory("x")])
    answer = await http.post("/v1/import", content=body, headers=key.headers | NDJSON)
    assert answer.status_code == 400
    assert hint in answer.json()["message"]
    assert '{"type":"header","format":"commonplace","version":1}' in answer.json()["message"]
    assert await contents(admin_pool, team) == []


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/import", {"Content-Type": "application/json"}, 415),
        ("/v1/import", NDJSON | {"Content-Encoding": "br"}, 415),
        ("/v1/import?fromLine=0", NDJSON, 400),
        ("/v1/import?format=other", NDJSON, 400),
        ("/v1/import?projectId=", NDJSON, 400),
        ("/v1/import?projectId=nowhere", NDJSON, 404),
        ("/v1/import?projectId=%00", NDJSON, 404),
    ],
)
async def test_what_cannot_be_imported_is_refused(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str, headers: dict[str, str], status: int
) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    answer = await http.post(path, content=ndjson([HEADER, memory("x")]), headers=key.headers | headers)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "query", ["include=everything", "include=sources", "since=yesterday", "cursor=x", "cursor=%00", "projectId="]
)
async def test_what_cannot_be_exported_is_refused(http: httpx2.AsyncClient, admin_pool: Pool, query: str) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    answer = await http.get(f"/v1/export?{query}", headers=key.headers)
    assert answer.status_code == 400, answer.text


async def test_scopes_gate_both(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    reader = await make_key(admin_pool, team.id, scopes=("memories:read",))
    writer = await make_key(admin_pool, team.id, scopes=("memories:write",))
    body = ndjson([HEADER, memory("x")])
    assert (await http.post("/v1/import", content=body, headers=reader.headers | NDJSON)).status_code == 403
    assert (await http.get("/v1/export", headers=writer.headers)).status_code == 403
    assert (await http.get("/v1/export")).status_code == 401


async def test_export_is_exempt_from_the_months_cap(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await set_limits(admin_pool, team.id, requests_per_month=0)
    assert (await http.post("/v1/search", json={"query": "x"}, headers=key.headers)).status_code == 402
    assert (await exported(http, key))[-1]["type"] == "end"


async def test_post_and_head_ask_for_the_same(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await make_memory(admin_pool, team, "fact")
    key = await make_key(admin_pool, team.id)
    answer = await http.post("/v1/export", json={"projectId": "default"}, headers=key.headers)
    assert [line["content"] for line in records(read(answer.text))] == ["fact"]
    audited = "SELECT count(*) FROM commonplace.audit_log WHERE action = 'memory.export'"
    before = await admin_pool.fetchval(audited)
    head = await http.head("/v1/export", headers=key.headers)
    assert (head.status_code, head.headers["content-type"], head.content) == (200, "application/x-ndjson", b"")
    assert await admin_pool.fetchval(audited) == before


async def test_since_leaves_out_what_did_not_change(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    lines = [memory("old", updatedAtEpoch=1_700_000_000_000), memory("new", updatedAtEpoch=1_800_000_000_000)]
    await imported(http, key, [HEADER, *lines])
    for since in ("1800000000000", "2027-01-15T08:00:00Z"):
        assert [line["content"] for line in records(await exported(http, key, f"?since={since}"))] == ["new"]


async def test_raw_events_of_others_private_memories_are_not_exported(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    await fill(admin_pool, team, 7)  # the seventh is private to agent:tester
    own, other = await make_key(admin_pool, team.id), await make_key(admin_pool, team.id, actor="agent:else")
    assert len(records(await exported(http, own, "?include=events"))) == 1
    assert records(await exported(http, other, "?include=events")) == []


async def test_a_cut_stream_is_gone_on_with_from_its_last_mark(
    http: httpx2.AsyncClient, admin_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_service, "PAGE_ROWS", 10)
    team = await make_team(admin_pool)
    await fill(admin_pool, team, 95)
    key = await make_key(admin_pool, team.id)
    whole = await exported(http, key, "?include=sessions,events,memories,sources")
    marks = [place for place, line in enumerate(whole) if line["type"] == "mark"]
    assert len(marks) == 12
    for place in (marks[0], marks[1], marks[6], marks[-1]):
        cursor = whole[place]["cursor"]
        rest = await exported(http, key, f"?include=sessions,events,memories,sources&cursor={cursor}")
        assert records(whole[:place]) + records(rest) == records(whole)
    nothing = await exported(http, key, f"?include=sessions,events,memories,sources&cursor={whole[-1]['cursor']}")
    assert [line["type"] for line in nothing] == ["header", "end"]

    cut = ndjson(whole[: marks[6] + 4])[:-20]
    other = await make_team(admin_pool)
    theirs = await make_key(admin_pool, other.id)
    summary = await imported(http, theirs, cut)
    assert (summary["failed"], summary["complete"]) == (1, False)
    assert counts(await imported(http, theirs, whole, f"?fromLine={summary['errors'][0]['line']}"))["imported"] > 0
    assert len(await contents(admin_pool, other)) == 95


async def test_a_client_that_leaves_is_audited_and_holds_nothing(
    http: httpx2.AsyncClient, admin_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_service, "PAGE_ROWS", 5)
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    for n in range(60):
        await make_memory(admin_pool, team, f"{n} " + "x" * 100_000)
    async with http.stream("GET", "/v1/export", headers=key.headers) as answer:
        async for _ in answer.aiter_bytes():
            break
        # The reader is slow, and no connection waits for it.
        busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'test_runtime'"
        assert await admin_pool.fetchval(f"{busy} AND state <> 'idle'") == 0
    ended = "SELECT details FROM commonplace.audit_log WHERE action = 'memory.export' AND details ->> 'stage' = 'ended'"
    async with asyncio.timeout(10):
        while (details := await admin_pool.fetchval(ended)) is None:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
    assert details["complete"] is False
    assert 0 < details["counts"]["memory"] < 60
    rows = await admin_pool.fetch("SELECT team_id::text, key_id::text, actor, request_id FROM commonplace.audit_log")
    assert {(row["team_id"], row["key_id"], row["actor"]) for row in rows} == {(team.id, key.id, "agent:tester")}
    assert len({row["request_id"] for row in rows}) == 1


async def test_a_client_that_does_not_read_is_cut_off(
    base_url: str, admin_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_service, "PAGE_ROWS", 20)
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.3)
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    for n in range(200):
        await make_memory(admin_pool, team, f"{n} " + "x" * 100_000)
    host, port = base_url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET /v1/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.token}\r\n\r\n".encode())
    ended = "SELECT details FROM commonplace.audit_log WHERE details ->> 'stage' = 'ended'"
    async with asyncio.timeout(20):
        while (details := await admin_pool.fetchval(ended)) is None:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
    assert details["complete"] is False
    writer.close()


async def test_two_imports_of_one_file_at_once_store_it_once(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    await fill(admin_pool, team, 600)
    lines = await exported(http, await make_key(admin_pool, team.id), "?include=sessions,events,memories,sources")
    keys = [await make_key(admin_pool, other.id) for _ in range(3)]
    done = await asyncio.gather(*(imported(http, key, lines) for key in keys))
    assert [one["failed"] for one in done] == [0, 0, 0]
    assert sum(one["imported"] for one in done) == 602
    assert len(await contents(admin_pool, other)) == 600
    superseded = "SELECT count(*) FROM commonplace.memories WHERE team_id = $1 AND superseded_by IS NOT NULL"
    assert await admin_pool.fetchval(superseded, UUID(other.id)) == 60


async def test_packed_bodies_are_read_member_by_member_and_bombs_are_not(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    packed = gzip.compress(ndjson([HEADER, memory("one")])) + gzip.compress(ndjson([memory("two")]))
    gzipped = {"Content-Encoding": "gzip"}
    assert counts(await imported(http, key, packed, **gzipped)) == {"imported": 2}
    cut = gzip.compress(ndjson([HEADER, memory("three"), *(memory(str(uuid4())) for _ in range(500))]))
    summary = await imported(http, key, cut[: len(cut) // 2], **gzipped)
    assert summary["imported"] > 1
    assert summary["errors"][-1]["message"] == "the compressed body ends too early"
    garbage = await http.post("/v1/import", content=b"no gzip", headers=key.headers | NDJSON | gzipped)
    assert garbage.status_code == 400
    for filling in (b"\n", b" \r\n", b"x"):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = packer.compress(ndjson([HEADER, memory(f"before {filling!r}")]))
        bomb += b"".join(packer.compress(filling * 2**20) for _ in range(300)) + packer.flush()
        summary = await imported(http, key, bomb, **gzipped)
        assert summary["imported"] == 1
        assert "times its size" in summary["errors"][-1]["message"] or "longer than" in summary["errors"][-1]["message"]


@asynccontextmanager
async def sending(url: str, key: Key) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which an import has begun."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v1/import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.token}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: application/x-ndjson\r\n\r\n".encode()
    )
    try:
        yield reader, writer
    finally:
        writer.close()


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


async def test_a_long_body_may_take_its_time_as_long_as_it_goes_on(
    base_url: str, admin_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttp, "body_seconds", 0.3)
    monkeypatch.setattr(BoundedHttp, "min_body_bytes", 1000)
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    async with sending(base_url, key) as (reader, writer):
        writer.write(chunk(ndjson([HEADER])))
        for n in range(12):
            writer.write(chunk(ndjson([memory(f"{n} " + "x" * 1000)])))
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")
        head = await reader.readuntil(b"\r\n")
    assert head == b"HTTP/1.1 200 OK\r\n"
    assert len(await contents(admin_pool, team)) == 12
    async with sending(base_url, key) as (reader, writer):
        writer.write(chunk(ndjson([HEADER])))
        head = await reader.readuntil(b"\r\n")
    assert head == b"HTTP/1.1 408 Request Timeout\r\n"


async def test_what_came_before_a_client_left_is_kept(base_url: str, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    async with sending(base_url, key) as (_reader, writer):
        writer.write(chunk(ndjson([HEADER, *(memory(f"m{n}") for n in range(250))])))
        await writer.drain()
        stored = "SELECT count(*) FROM commonplace.memories"
        async with asyncio.timeout(10):
            while await admin_pool.fetchval(stored) == 0:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
    assert await admin_pool.fetchval(stored) == 199  # a batch is 200 lines, the header is one


async def test_a_file_that_is_none_is_not_read_to_its_end(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    summary = await imported(http, key, ndjson([HEADER]) + b"1\n" * 20_000)
    assert 10_000 <= summary["failed"] <= 10_200
    assert len(summary["errors"]) == 100
    assert summary["nextLine"] == summary["failed"] + 2


async def test_each_batch_is_audited_with_what_became_of_it(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await imported(http, key, [HEADER, *(memory(f"m{n}") for n in range(250))], **{"X-Request-Id": "r-1"})
    rows = await admin_pool.fetch("SELECT * FROM commonplace.audit_log WHERE action = 'memory.import' ORDER BY number")
    assert [row["details"]["counts"] for row in rows] == [{"imported": 199}, {"imported": 51}]
    assert [(row["details"]["fromLine"], row["details"]["toLine"]) for row in rows] == [(2, 200), (201, 251)]
    assert {(row["request_id"], row["details"]["requestId"], row["actor"]) for row in rows} == {
        ("r-1", "r-1", "agent:tester")
    }


async def test_what_lists_show_is_bounded(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    long = "t" * 10_000
    lines = [
        memory("a", title=long),
        memory("b", kind=long),
        memory("c", tags=["x"] * 1001),
        memory("d", tags=[long] * 30),
    ]
    assert counts(await imported(http, key, [HEADER, *lines])) == {"failed": 4}


async def test_the_audit_of_a_key_survives_a_memory_with_its_id(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    minted = (await http.post("/v1/keys", json={"label": "kept"}, headers=key.headers)).json()["id"]
    assert counts(await imported(http, key, [HEADER, memory("x", id=minted)])) == {"imported": 1}
    assert (await http.delete(f"/v1/memories/{minted}", headers=key.headers)).status_code == 200
    details = await admin_pool.fetchval("SELECT details FROM commonplace.audit_log WHERE action = 'api_key.create'")
    assert details["label"] == "kept"
