"""Section 2.3: which scopes open which family of routes, in the superset that accepts every real key."""

from collections.abc import Sequence
from uuid import uuid4

import pytest

from tests.contract.support import REFUSED_KEY, Api, World
from tests.factories import Key, make_event, make_key

EVENTS = {"memories:write", "events:write", "*"}
SESSIONS = {"memories:write", "sessions:write", "*"}
READ = {"memories:read", "observations:read", "*"}
JOBS = {"memories:read", "jobs:read", "*"}
WRITE = {"memories:write", "*"}
EVERY = sorted(
    EVENTS | SESSIONS | READ | JOBS | {"admin", "memories:admin", "audit:read", "local-dev", "MEMORIES:READ", "", "x"}
)

FAMILIES = {
    "events": EVENTS,
    "batch": EVENTS,
    "start": SESSIONS,
    "end": SESSIONS,
    "search": READ,
    "context": READ,
    "event": READ,
    "event observations": READ,
    "session": READ,
    "mcp": READ,
    "job": JOBS,
    "jobs": JOBS,
    "team jobs": JOBS,
    "project jobs": JOBS,
    "insert": WRITE,
    "delete": WRITE,
    "purge": WRITE,
    "mint": {"*"},
    "retry": WRITE,
    "cancel": WRITE,
}


async def statuses(api: Api, world: World, key: Key) -> dict[str, int]:
    """By route: what a key is answered, with ids that are not there."""
    event, nothing = make_event(projectId=world.project_id), uuid4()
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    asked: dict[str, tuple[str, str, object]] = {
        "events": ("POST", "/v1/events", event),
        "batch": ("POST", "/v1/events/batch", [event]),
        "start": ("POST", "/v1/sessions/start", {"projectId": world.project_id}),
        "end": ("POST", f"/v1/sessions/{nothing}/end", {}),
        "search": ("POST", "/v1/search", {"projectId": world.project_id, "query": "x"}),
        "context": ("POST", "/v1/context", {"projectId": world.project_id, "query": "x"}),
        "event": ("GET", f"/v1/events/{nothing}", None),
        "event observations": ("GET", f"/v1/events/{nothing}/observations", None),
        "session": ("GET", f"/v1/sessions/{nothing}", None),
        "mcp": ("POST", "/v1/mcp", message),
        "job": ("GET", f"/v1/jobs/{nothing}", None),
        "jobs": ("GET", "/v1/jobs", None),
        "team jobs": ("GET", f"/v1/teams/{world.team_id}/jobs", None),
        "project jobs": ("GET", f"/v1/projects/{world.project_id}/jobs", None),
        "insert": ("POST", "/v1/memories", {"projectId": world.project_id, "content": "x"}),
        "delete": ("DELETE", f"/v1/memories/{nothing}", None),
        "purge": ("DELETE", f"/v1/projects/{nothing}/memory", None),
        "mint": ("POST", "/v1/keys", {}),
        "retry": ("POST", f"/v1/jobs/{nothing}/retry", {}),
        "cancel": ("POST", f"/v1/jobs/{nothing}/cancel", {}),
    }
    found: dict[str, int] = {}
    for name, (method, path, body) in asked.items():
        answer = await (api.send(method, path, key) if body is None else api.send(method, path, key, body))
        found[name] = answer.status_code
        if answer.status_code == 403 and name != "mint":
            assert answer.json() == REFUSED_KEY, name
    return found


async def test_2_3_a_key_mints_no_more_than_it_may_do_itself(api: Api, world: World) -> None:
    """
    Section 9.27: in the peer whoever writes mints a key that reads. What is minted reads, so here it takes both; a key
    that only writes is refused.
    """
    for scopes, status in (
        (["memories:write"], 403),
        (["memories:read"], 403),
        (["memories:read", "memories:write"], 201),
        (["*"], 201),
    ):
        key = await make_key(api.pool, world.team_id, scopes=scopes)
        await api.post("/v1/keys", key, {}, status)


@pytest.mark.parametrize("scope", EVERY)
async def test_2_3_what_one_scope_opens(api: Api, world: World, scope: str) -> None:
    key = await make_key(api.pool, world.team_id, scopes=[scope])
    found = await statuses(api, world, key)
    assert {name: status != 403 for name, status in found.items()} == {
        name: scope in opened for name, opened in FAMILIES.items()
    }


@pytest.mark.parametrize(
    "scopes",
    [
        ["events:write", "sessions:write", "observations:read", "jobs:read"],
        ["memories:read", "memories:write"],
        [],
    ],
    ids=["installer's", "usual", "none"],
)
async def test_2_3_what_several_scopes_open(api: Api, world: World, scopes: Sequence[str]) -> None:
    key = await make_key(api.pool, world.team_id, scopes=scopes)
    found = await statuses(api, world, key)
    opens = {name: bool(set(scopes) & opened) for name, opened in FAMILIES.items()}
    opens["mint"] = {"memories:read", "memories:write"} <= set(scopes)
    assert {name: status != 403 for name, status in found.items()} == opens


async def test_2_3_the_e2e_read_only_key_starts_no_session(api: Api, world: World) -> None:
    """Caution of 2.3; before the body is validated (6.6)."""
    key = await make_key(api.pool, world.team_id, scopes=["observations:read", "jobs:read", "memories:read"])
    bodies: tuple[object, ...] = ({}, {"projectId": world.project_id}, {"projectId": 5}, [])
    for body in bodies:
        assert await api.post("/v1/sessions/start", key, body, 403) == REFUSED_KEY


async def test_2_3_write_does_not_imply_read(api: Api, world: World) -> None:
    key = await make_key(api.pool, world.team_id, scopes=["memories:write"])
    body = {"projectId": world.project_id, "query": "x"}
    assert await api.post("/v1/search", key, body, 403) == REFUSED_KEY
