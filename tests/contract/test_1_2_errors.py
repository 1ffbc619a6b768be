"""Section 1.2: each error body. 402 and 429 are in test_2_6_guards.py, compat bodies in test_1_6_compat.py."""

import os
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from pydantic import SecretStr

from commonplace_runtime.embedded import EmbeddedPostgres
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import open_pool
from tests.api_server import served
from tests.contract.support import (
    FOREIGN_PROJECT,
    FOREIGN_SESSION,
    JSON,
    MISSING_KEY,
    OTHER_PROJECT,
    REFUSED_KEY,
    Api,
    World,
    raw,
)
from tests.factories import make_event, make_key, make_team


async def test_1_2_400_validation_error_has_issues(api: Api, world: World) -> None:
    answer = await api.post("/v1/search", world.bound, {"projectId": 1}, 400)
    assert set(answer) == {"error", "issues"}
    assert answer["error"] == "ValidationError"
    assert [issue["path"] for issue in answer["issues"]] == [["projectId"], ["query"]]
    assert all({"code", "path", "message"} <= set(issue) for issue in answer["issues"])


async def test_1_2_400_validation_error_of_a_query_parameter(api: Api, world: World) -> None:
    event = make_event(projectId=world.project_id)
    answer = await api.post("/v1/events?wait=maybe", world.bound, event, 400)
    assert (answer["error"], answer["issues"][0]["path"]) == ("ValidationError", ["wait"])


@pytest.mark.parametrize("path", ["/v1/teams//jobs", "/v1/projects//jobs", "/v1/jobs//retry"])
async def test_1_2_400_an_empty_path_parameter_is_the_clients_fault(api: Api, world: World, path: str) -> None:
    """Practically unreachable in the peer: never a 5xx and never another route's answer."""
    answer = await raw(api.url, f"GET {path}\nAuthorization: Bearer {world.key.token}")
    assert answer.status in (400, 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/usage"),
        ("POST", "/v1/keys"),
        ("GET", "/v1/connect"),
        ("POST", "/v1/events"),
        ("POST", "/v1/events/batch"),
        ("GET", "/v1/events/x"),
        ("GET", "/v1/events/x/observations"),
        ("GET", "/v1/teams/x/jobs"),
        ("GET", "/v1/projects/x/jobs"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/x"),
        ("POST", "/v1/jobs/x/retry"),
        ("POST", "/v1/jobs/x/cancel"),
        ("POST", "/v1/sessions/start"),
        ("GET", "/v1/sessions/x"),
        ("POST", "/v1/sessions/x/end"),
        ("POST", "/v1/memories"),
        ("DELETE", "/v1/memories/x"),
        ("POST", "/v1/search"),
        ("POST", "/v1/context"),
        ("DELETE", "/v1/projects/x/memory"),
        ("POST", "/v1/mcp"),
        ("POST", "/api/sessions/observations"),
        ("POST", "/api/sessions/summarize"),
    ],
)
async def test_1_2_401_and_403_on_every_route(api: Api, world: World, method: str, path: str) -> None:
    """No key: 401 without WWW-Authenticate. Unknown, revoked, expired, under-scoped: 403, indistinguishable."""
    missing = await api.send(method, path)
    assert (missing.status_code, missing.json()) == (401, MISSING_KEY)
    assert "www-authenticate" not in missing.headers
    unknown = await api.send(method, path, headers={"Authorization": "Bearer cm_unknown"})
    assert (unknown.status_code, unknown.json()) == (403, REFUSED_KEY)
    nothing = await make_key(api.pool, world.team_id, scopes=["local-dev"])
    for key in (nothing, await make_key(api.pool, world.team_id, state="revoked")):
        refused = await api.send(method, path, key)
        assert (refused.status_code, refused.json()) == (403, REFUSED_KEY)


async def test_1_2_403_a_key_without_a_team_does_not_exist(api: Api) -> None:
    """Every key of ours belongs to a team: the database refuses another, so `not bound to a team` has no case."""
    nullable = await api.pool.fetchval(
        "SELECT is_nullable FROM information_schema.columns WHERE table_schema = 'commonplace'"
        " AND table_name = 'api_keys' AND column_name = 'team_id'"
    )
    assert nullable == "NO"


async def test_1_2_403_another_project(api: Api, world: World, other: World) -> None:
    for project in (world.sibling_id, other.project_id, "sibling", "nonsense", str(uuid4())):
        for path, body in (
            ("/v1/events", make_event(projectId=project)),
            ("/v1/sessions/start", {"projectId": project}),
            ("/v1/search", {"projectId": project, "query": "x"}),
            ("/v1/context", {"projectId": project, "query": "x"}),
        ):
            assert await api.post(path, world.bound, body, 403) == OTHER_PROJECT, path


async def test_1_2_403_another_project_for_memories_and_purge(api: Api, world: World, other: World) -> None:
    for project in (world.sibling_id, other.project_id):
        body = {"projectId": project, "content": "x"}
        assert await api.post("/v1/memories", world.bound, body, 403) == OTHER_PROJECT
        assert await api.delete(f"/v1/projects/{project}/memory", world.bound, 403) == OTHER_PROJECT


async def test_1_2_403_a_write_into_another_teams_project(api: Api, world: World, other: World) -> None:
    for project in (other.project_id, str(uuid4()), "nonsense"):
        for path, body in (
            ("/v1/events", make_event(projectId=project)),
            ("/v1/sessions/start", {"projectId": project}),
        ):
            assert await api.post(path, world.key, body, 403) == FOREIGN_PROJECT, path


async def test_1_2_403_a_memory_for_another_teams_project_or_session(api: Api, world: World, other: World) -> None:
    body: dict[str, Any] = {"projectId": other.project_id, "content": "x"}
    assert await api.post("/v1/memories", world.key, body, 403) == FOREIGN_PROJECT
    theirs = await api.session(other.bound, other.project_id)
    body = {"projectId": world.project_id, "content": "x", "serverSessionId": theirs["id"]}
    assert await api.post("/v1/memories", world.key, body, 403) == FOREIGN_SESSION


async def test_1_2_403_an_event_for_another_session(api: Api, world: World, other: World) -> None:
    theirs = (await api.session(other.bound, other.project_id))["id"]
    siblings = (await api.session(world.sibling_key, world.sibling_id))["id"]
    for session in (theirs, siblings, str(uuid4()), "nonsense"):
        body = make_event(projectId=world.project_id, serverSessionId=session)
        assert await api.post("/v1/events", world.key, body, 403) == FOREIGN_SESSION


async def test_1_2_403_include_payload(api: Api, world: World) -> None:
    answer = await api.get("/v1/jobs?include=payload", world.bound, 403)
    assert answer == {"error": "Forbidden", "message": "`include=payload` requires admin scope"}


async def test_1_2_404_names_what_is_missing(api: Api, world: World) -> None:
    for path, name in (
        (f"/v1/sessions/{uuid4()}", "Session"),
        (f"/v1/events/{uuid4()}", "Event"),
        (f"/v1/jobs/{uuid4()}", "Generation job"),
        (f"/v1/teams/{uuid4()}/jobs", "Team"),
        (f"/v1/projects/{uuid4()}/jobs", "Project"),
    ):
        assert await api.get(path, world.key, 404) == {"error": "NotFound", "message": f"{name} not found"}


async def test_1_2_404_not_found_of_the_two_delete_routes(api: Api, world: World) -> None:
    for path in (f"/v1/memories/{uuid4()}", "/v1/memories/nonsense", f"/v1/projects/{uuid4()}/memory"):
        assert await api.delete(path, world.key, 404) == {"error": "not_found"}


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("GET", "/nowhere?secret=1", "/nowhere"),
        ("POST", "/v1/nowhere/", "/v1/nowhere/"),
        ("DELETE", "/v1/events/1", "/v1/events/1"),
        ("GET", "/v1/search", "/v1/search"),
        ("PUT", "/v1/events", "/v1/events"),
        ("PATCH", "/healthz", "/healthz"),
        ("POST", "/api/sessions/init", "/api/sessions/init"),
    ],
)
async def test_1_2_404_an_unknown_route_is_named(api: Api, method: str, path: str, named: str) -> None:
    answer = await raw(api.url, f"{method} {path}")
    assert (answer.status, answer.json) == (404, {"error": "NotFound", "message": f"Cannot {method} {named}"})


async def test_1_2_409_conflict(api: Api, world: World) -> None:
    job = (await api.event(world.bound, world.project_id))["generationJob"]["id"]
    await api.end_job(job, "completed")
    assert await api.post(f"/v1/jobs/{job}/cancel", world.bound, {}, 409) == {
        "error": "Conflict",
        "message": "Generation job already completed; cannot cancel",
    }


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"{", 400, "SyntaxError"),
        (b"{'a': 1}", 400, "SyntaxError"),
        (b'"text"', 400, "SyntaxError"),
        (b"5", 400, "SyntaxError"),
        (b"null", 400, "SyntaxError"),
        (b'{"a": NaN}', 400, "SyntaxError"),
        (b'{"payload": "' + b"x" * (5 * 1024 * 1024) + b'"}', 413, "PayloadTooLargeError"),
    ],
    ids=["cut off", "single quotes", "bare string", "bare number", "null", "NaN", "more than 5 MiB"],
)
async def test_1_2_500_bodies_that_cannot_be_read_are_4xx_here(
    api: Api, world: World, content: bytes, status: int, error: str
) -> None:
    """Section 11.5: 400 with the name `SyntaxError` and 413 where the peer answers 500."""
    for path in ("/v1/events", "/v1/events/batch", "/v1/sessions/start", "/v1/search", "/v1/context"):
        answer = await api.send("POST", path, world.bound, headers=JSON, content=content)
        assert (answer.status_code, answer.json()["error"]) == (status, error), path
        if status == 413:
            assert answer.json()["message"] == "request entity too large"


@pytest.mark.parametrize("depth", [500, 50_000])
async def test_1_2_a_body_that_nests_absurdly_is_400_and_says_so(api: Api, world: World, depth: int) -> None:
    content = b'{"payload": ' + b"[" * depth + b"]" * depth + b"}"
    answer = await api.send("POST", "/v1/events", world.bound, headers=JSON, content=content)
    assert (answer.status_code, "deep" in answer.text) == (400, True)


async def test_1_2_500_a_body_of_just_5_mib_is_read(api: Api, world: World) -> None:
    head = b'{"projectId": "default", "query": "'
    content = head + b"x" * (5 * 1024 * 1024 - len(head) - 2) + b'"}'
    answer = await api.send("POST", "/v1/search", world.bound, headers=JSON, content=content)
    assert (answer.status_code, answer.json()) == (200, {"observations": []})


@pytest.mark.parametrize("path", ["/v1/events/%", "/v1/events/%zz", "/v1/events/%E0%A4%A", "/v1/events/%FF", "/%"])
async def test_1_2_500_bad_percent_encoding_is_4xx_here(api: Api, world: World, path: str) -> None:
    """Section 11.5: where the peer answers 500 `URIError`."""
    answer = await raw(api.url, f"GET {path}\nAuthorization: Bearer {world.bound.token}")
    assert answer.status in (400, 404)
    assert "error" in answer.json


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\ud800", "x\udfff\x00"])
async def test_1_2_500_nul_and_lone_surrogates_are_accepted_here(api: Api, world: World, text: str) -> None:
    """Section 11.5: cleaned and stored, for a 4xx would make the client drop the event."""
    event = (await api.event(world.bound, world.project_id, payload={"t": text, text: 1}, eventType=f"x{text}"))[
        "event"
    ]
    assert "\x00" not in str(event)
    await api.session(world.bound, world.project_id, externalSessionId=f"s{text}", metadata={"prompt": text})
    assert isinstance(await api.search(world.bound, world.project_id, f"q{text}"), list)


@pytest.mark.parametrize("moment", [253_402_300_800_000, 8_640_000_000_000_001, 2**53, 2**63, 2**70, 1e300])
async def test_1_2_500_dates_beyond_the_range_are_400_here(api: Api, world: World, moment: float) -> None:
    """Section 11.5."""
    body = make_event(projectId=world.project_id, occurredAtEpoch=moment)
    answer = await api.post("/v1/events", world.bound, body, 400)
    assert answer["issues"][0]["path"] == ["occurredAtEpoch"]


async def test_1_2_500_a_database_that_is_away_is_503_here(
    postgres: EmbeddedPostgres, template_database: str, api_settings: Settings
) -> None:
    """
    Section 7.9.8: transient trouble is a 5xx, so that the client keeps the event. The peer answers 500
    `InternalError`; with 503 and Retry-After whoever retries knows when.
    """
    name = f"contract_away_{os.getpid()}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
    own = api_settings.model_copy(update={"database_url": SecretStr(postgres.url(user="test_runtime", database=name))})
    try:
        url = postgres.url(user="test_admin", database=name)
        async with await open_pool(url, size=1, connect_timeout=10, statement_timeout=30, application="tests") as pool:
            key = await make_key(pool, (await make_team(pool)).id)
        async with served(create_app(own)) as base, httpx2.AsyncClient(base_url=base, timeout=20) as http:
            event = make_event()
            assert (await http.post("/v1/events", json=event, headers=key.headers)).status_code == 201
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            answers = [
                await http.post(path, json=body, headers=key.headers)
                for path, body in (("/v1/events", event), ("/v1/search", {"query": "x"}), ("/v1/sessions/start", {}))
            ]
            missing = await http.post("/v1/events", json=event)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert name not in answer.text
    assert missing.status_code == 401, "whoever shows no key is told so all the same"


async def test_1_2_503_a_page_at_the_root_never_breaks(api: Api) -> None:
    answer = await api.send("GET", "/")
    assert answer.status_code < 500
    assert (await api.send("GET", "/healthz")).json()["status"] == "ok"
