"""Section 1.1: what every route shares. Raw sockets where a client library would tidy a request up."""

import gzip
import json
import re
import zlib
from uuid import UUID, uuid4

import pytest

from tests.contract.support import JSON, MISSING_KEY, Api, World, raw
from tests.factories import make_event, make_key

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-dns-prefetch-control": "off",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "origin-agent-cluster": "?1",
}


async def test_1_1_casing_of_bodies_and_queries(api: Api, world: World) -> None:
    """camelCase in bodies, snake_case in the query parameters of job listings."""
    answer = await api.event(world.bound, world.project_id)
    for part in (answer["event"], answer["generationJob"]):
        assert all(re.fullmatch(r"[a-z]+[A-Za-z]*", name) for name in part), part
    camel = await api.get("/v1/jobs?sourceType=session_summary", world.bound)
    snake = await api.get("/v1/jobs?source_type=session_summary", world.bound)
    assert (camel["total"], snake["total"]) == (1, 0)


async def test_1_1_ids_are_opaque_uuids_in_text(api: Api, world: World) -> None:
    answer = await api.event(world.bound, world.project_id)
    for found in (answer["event"]["id"], answer["event"]["teamId"], answer["generationJob"]["id"]):
        assert str(UUID(found)) == found


@pytest.mark.parametrize("identifier", ["teamB", "projB", "x" * 4000, "%00", "%F0%9F%98%80", "..%2f", "1;2", "%20"])
async def test_1_1_an_id_that_is_no_uuid_is_simply_not_there(api: Api, world: World, identifier: str) -> None:
    for path, message in (
        (f"/v1/events/{identifier}", "Event not found"),
        (f"/v1/jobs/{identifier}", "Generation job not found"),
        (f"/v1/sessions/{identifier}", "Session not found"),
        (f"/v1/teams/{identifier}/jobs", "Team not found"),
        (f"/v1/projects/{identifier}/jobs", "Project not found"),
    ):
        answer = await raw(api.url, f"GET {path}\nAuthorization: Bearer {world.key.token}")
        if "%2f" not in identifier:
            assert (answer.status, answer.json) == (404, {"error": "NotFound", "message": message})
        assert answer.status == 404


async def test_1_1_times_are_integer_milliseconds(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id, occurredAtEpoch=1_790_000_000_123))["event"]
    assert event["occurredAtEpoch"] == 1_790_000_000_123
    for name in ("receivedAtEpoch", "createdAtEpoch"):
        assert isinstance(event[name], int)
        assert event[name] > 1_600_000_000_000


async def test_1_1_times_are_iso_in_since_of_usage(api: Api, world: World) -> None:
    usage = await api.get("/v1/usage", world.bound)
    assert re.fullmatch(r"\d{4}-\d\d-01T00:00:00\.000Z", usage["since"])


async def test_1_1_times_are_iso_in_expires_at_of_keys(api: Api, world: World) -> None:
    key = await api.post("/v1/keys", world.bound, {"expiresInDays": 1}, 201)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", key["expiresAt"])


async def test_1_1_absent_values_are_null(api: Api, world: World) -> None:
    body = {"projectId": world.project_id, "sourceType": "api", "eventType": "note", "occurredAtEpoch": 1}
    event = (await api.post("/v1/events", world.bound, body, 201))["event"]
    for name in ("serverSessionId", "sourceEventId", "platformSource"):
        assert event[name] is None
    session = await api.session(world.bound, world.project_id)
    for name in ("externalSessionId", "contentSessionId", "agentId", "agentType", "platformSource", "endedAtEpoch"):
        assert session[name] is None
    assert session["lastGeneratedAtEpoch"] is None


async def test_1_1_unknown_body_fields_are_ignored(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id, nonsense={"a": [1]}, id="mine", teamId="x"))["event"]
    assert "nonsense" not in event
    assert (event["id"] != "mine", event["teamId"]) == (True, world.team_id)
    await api.session(world.bound, world.project_id, nonsense=1)
    assert await api.search(world.bound, world.project_id, "x", nonsense=1) == []


async def test_1_1_unknown_query_parameters_are_ignored(api: Api, world: World) -> None:
    await api.event(world.bound, world.project_id, "?nonsense=1&generated=x")
    assert (await api.get("/v1/jobs?nonsense=1&nonsense=2", world.bound))["total"] == 1


@pytest.mark.parametrize("path", ["/V1/Search", "/v1/search/", "/v1/SEARCH/", "/V1/search"])
async def test_1_1_routing_ignores_case_and_a_trailing_slash(api: Api, world: World, path: str) -> None:
    body = json.dumps({"projectId": world.project_id, "query": "x"}).encode()
    answer = await raw(
        api.url, f"POST {path}\nAuthorization: Bearer {world.bound.token}\nContent-Type: application/json", body
    )
    assert (answer.status, answer.json) == (200, {"observations": []})
    assert answer.header("x-request-id")


async def test_1_1_routing_keeps_the_case_of_an_id(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]
    answer = await raw(api.url, f"GET /V1/EVENTS/{event['id']}/\nAuthorization: Bearer {world.bound.token}")
    assert answer.json["event"]["id"] == event["id"]


async def test_1_1_routing_does_not_redirect(api: Api, world: World) -> None:
    answer = await raw(api.url, f"GET /v1/usage/\nAuthorization: Bearer {world.bound.token}")
    assert (answer.status, answer.header("location")) == (200, None)


@pytest.mark.parametrize("path", ["/healthz", "/v1/info", "/api/health", "/api/version", "/v1/usage", "/v1/connect"])
async def test_1_1_head_answers_any_get_route(api: Api, world: World, path: str) -> None:
    key = f"Authorization: Bearer {world.bound.token}"
    full = await raw(api.url, f"GET {path}\n{key}")
    head = await raw(api.url, f"HEAD {path}\n{key}")
    assert (head.status, head.body) == (full.status, b"") == (200, b"")
    assert head.header("content-type") == full.header("content-type")
    assert int(head.header("content-length") or 0) > 0


async def test_1_1_head_of_a_job_listing_and_an_unknown_event(api: Api, world: World) -> None:
    assert (await api.send("HEAD", "/v1/jobs", world.bound)).status_code == 200
    assert (await api.send("HEAD", f"/v1/events/{uuid4()}", world.bound)).status_code == 404


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "text/json", None])
async def test_1_1_content_type_other_than_json_leaves_the_body_undefined(
    api: Api, world: World, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps(make_event(projectId=world.project_id)).encode()
    for path, expected in (
        ("/v1/events", "object"),
        ("/v1/events/batch", "array"),
        ("/v1/sessions/start", "object"),
        ("/v1/search", "object"),
    ):
        answer = await api.send("POST", path, world.bound, headers=headers, content=body)
        assert answer.status_code == 400
        (issue,) = answer.json()["issues"]
        assert (issue["code"], issue["expected"], issue["path"]) == ("invalid_type", expected, [])
        assert issue["message"] == f"Invalid input: expected {expected}, received undefined"


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_1_1_content_type_json_is_parsed_with_any_parameters(api: Api, world: World, content_type: str) -> None:
    body = json.dumps(make_event(projectId=world.project_id)).encode()
    answer = await api.send("POST", "/v1/events", world.bound, headers={"Content-Type": content_type}, content=body)
    assert answer.status_code == 201


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_1_1_content_type_packed_bodies_are_accepted(api: Api, world: World, encoding: str, pack: object) -> None:
    body = json.dumps(make_event(projectId=world.project_id)).encode()
    packed = pack(body)  # type: ignore[operator]
    headers = {**JSON, "Content-Encoding": encoding}
    assert (await api.send("POST", "/v1/events", world.bound, headers=headers, content=packed)).status_code == 201


async def test_1_1_an_empty_json_body_is_an_empty_object(api: Api, world: World) -> None:
    answer = await raw(
        api.url,
        f"POST /v1/sessions/start\nAuthorization: Bearer {world.bound.token}\nContent-Type: application/json\n"
        "Content-Length: 0",
    )
    assert answer.status == 201
    answer = await raw(
        api.url,
        f"POST /v1/search\nAuthorization: Bearer {world.bound.token}\nContent-Type: application/json\n"
        "Content-Length: 0",
    )
    assert [issue["path"] for issue in answer.json["issues"]] == [["query"]]


async def test_1_1_json_payload_echo_reorders_keys_and_collapses_duplicates(api: Api, world: World) -> None:
    raw_event = json.dumps(make_event(projectId=world.project_id, payload="PAYLOAD")).replace(
        '"PAYLOAD"', '{"long name": 1, "b": 2, "a": {"z": null, "y": [1.5, true]}, "b": 3}'
    )
    answer = await api.send("POST", "/v1/events", world.bound, headers=JSON, content=raw_event.encode())
    assert answer.json()["event"]["payload"] == {"long name": 1, "b": 3, "a": {"z": None, "y": [1.5, True]}}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/healthz", "/v1/info", "/api/health", "/api/readiness", "/api/version", "/")),
        *(("POST", path) for path in ("/v1/search", "/v1/events", "/v1/mcp", "/api/sessions/observations")),
        *(("GET", path) for path in ("/nowhere", "/v1/mcp", "/v1/jobs")),
        ("OPTIONS", "/v1/search"),
    ],
)
async def test_1_1_security_headers_are_on_every_response(api: Api, method: str, path: str) -> None:
    answer = await api.send(method, path)
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "x-powered-by" not in answer.headers


async def test_1_1_cors_without_origin_is_untouched(api: Api) -> None:
    answer = await api.send("GET", "/healthz")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "vary" not in answer.headers


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:6274"])
async def test_1_1_cors_a_page_of_this_machine_is_echoed(api: Api, world: World, origin: str) -> None:
    for path in ("/healthz", "/v1/usage", "/nowhere"):
        answer = await api.send("GET", path, world.bound, headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost", "https://localhost:3000", "http://localhost.evil:1", "null"]
)
async def test_1_1_cors_another_origin_is_served_without_permission(api: Api, origin: str) -> None:
    """Section 11.5: a foreign origin is no 500, for that would divert a client into its local store."""
    answer = await api.send("GET", "/healthz", headers={"Origin": origin})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/search", "/v1/mcp", "/healthz", "/nowhere", "/"])
async def test_1_1_cors_options_on_any_path_is_204(api: Api, path: str) -> None:
    headers = {"Origin": "http://localhost:1", "Access-Control-Request-Method": "POST"}
    answer = await api.send("OPTIONS", path, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-methods"] == "GET,HEAD,POST,PUT,PATCH,DELETE"
    allowed = answer.headers["access-control-allow-headers"].split(",")
    assert {"Content-Type", "Authorization", "X-Requested-With"} <= set(allowed)


async def test_1_1_cors_preflight_allows_the_key_and_mcp_headers(api: Api) -> None:
    """Section 9.34: what the peer's preflight leaves out."""
    answer = await api.send("OPTIONS", "/v1/mcp", headers={"Origin": "http://localhost:1"})
    allowed = answer.headers["access-control-allow-headers"].lower().split(",")
    assert {"x-api-key", "mcp-protocol-version", "mcp-session-id"} <= set(allowed)


@pytest.mark.parametrize("given", ["a", "abc-123_X", "9" * 64, "A_-"])
async def test_1_1_request_id_that_is_safe_is_honoured(api: Api, given: str) -> None:
    answer = await api.send("POST", "/v1/search", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 65, "-a", "_a", "a b", "a/b", "a.b", "ä", "a\tb", "{}"])
async def test_1_1_request_id_that_is_unsafe_is_replaced(api: Api, given: str) -> None:
    answer = await raw(api.url, f"POST /v1/search\nX-Request-Id: {given}")
    minted = answer.header("x-request-id")
    assert minted != given
    assert str(UUID(minted)) == minted


async def test_1_1_request_id_is_minted_once_each(api: Api) -> None:
    minted = {(await api.send("POST", "/v1/search")).headers["x-request-id"] for _ in range(3)}
    assert len(minted) == 3


async def test_1_1_request_id_is_of_v1_and_what_is_audited(api: Api) -> None:
    """In the peer of `/v1` only. The routes under `/api` are audited here (9.29), so they can be found by it too."""
    for path in ("/healthz", "/nowhere"):
        assert "x-request-id" not in (await api.send("GET", path, headers={"X-Request-Id": "mine"})).headers
    for path in ("/v1/nowhere", "/v1/info", "/api/sessions/observations"):
        answer = await api.send("GET", path, headers={"X-Request-Id": "mine"})
        assert answer.headers["x-request-id"] == "mine"


async def test_1_1_request_id_is_in_audit_rows_and_event_job_payloads(api: Api, world: World) -> None:
    admin = await make_key(
        api.pool, world.team_id, project_id=world.project_id, scopes=["memories:read", "memories:admin"]
    )
    event = make_event(projectId=world.project_id)
    answer = await api.send("POST", "/v1/events", world.bound, event, headers={"X-Request-Id": "rq-77"})
    assert answer.headers["x-request-id"] == "rq-77"
    (row,) = await api.audits(world, "event.received")
    assert row["details"]["requestId"] == row["request_id"] == "rq-77"
    (job,) = (await api.get("/v1/jobs?include=payload", admin))["jobs"]
    assert job["payload"]["request_id"] == "rq-77"


async def test_1_1_a_key_is_asked_for_before_the_body_is_read(api: Api, world: World) -> None:
    """
    Section 11, traps: authenticate before validating. The peer parses first, so that a broken body of a stranger is
    its 500; its answers to broken bodies have no request id, ours do.
    """
    for content in (b"{", b'"text"', b"", b"x" * (5 * 1024 * 1024 + 1)):
        answer = await api.send("POST", "/v1/events", None, headers=JSON, content=content)
        assert (answer.status_code, answer.json()) == (401, MISSING_KEY)
    broken = await api.send("POST", "/v1/events", world.bound, headers=JSON, content=b"{")
    assert (broken.status_code, bool(broken.headers["x-request-id"])) == (400, True)


async def test_1_1_an_unknown_path_and_an_unknown_method_are_404_without_a_key(api: Api) -> None:
    for method, path in (("GET", "/v1/nowhere"), ("PUT", "/v1/events"), ("PATCH", "/v1/search")):
        assert (await api.send(method, path)).status_code == 404
