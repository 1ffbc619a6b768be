"""What careless and hostile clients send to /v1/memories: cleaned, stored, or refused where it is wrong."""

from typing import Any

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.integration.runtime.api.memories import make_world, patch, post, read, supersede, write

GITHUB = "ghp_" + "a1B2" * 9


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ["content"]),
        ({"content": None}, ["content"]),
        ({"content": ""}, ["content"]),
        ({"content": "", "narrative": "x"}, ["content"]),
        ({"content": 7}, ["content"]),
        ({"narrative": 7}, ["narrative"]),
        ({"type": "decision", "filesRead": ["a"]}, ["content"]),
        ({"content": "x", "kind": ""}, ["kind"]),
        ({"content": "x", "kind": "k" * 201}, ["kind"]),
        ({"content": "x", "type": "k" * 201}, ["type"]),
        ({"content": "x", "title": "t" * 1001}, ["title"]),
        ({"content": "x", "title": 1}, ["title"]),
        ({"content": "x", "subtitle": "t" * 1001}, ["subtitle"]),
        ({"content": "x", "projectId": ""}, ["projectId"]),
        ({"content": "x", "projectId": 1}, ["projectId"]),
        ({"content": "x", "serverSessionId": ""}, ["serverSessionId"]),
        ({"content": "x", "metadata": "m"}, ["metadata"]),
        ({"content": "x", "facts": "f"}, ["facts"]),
        ({"content": "x", "facts": ["f", 1]}, ["facts", 1]),
        ({"content": "x", "concepts": ["c"] * 1001}, ["concepts"]),
        ({"content": "x", "tags": "t"}, ["tags"]),
        ({"content": "x", "tags": ["t" * 201]}, ["tags", 0]),
        ({"content": "x", "tags": [None]}, ["tags", 0]),
        ({"content": "x", "tags": [f"t{number}" for number in range(10_000)]}, ["tags"]),
        ({"content": "x", "importance": True}, ["importance"]),
        ({"content": "x", "importance": "0.5"}, ["importance"]),
        ({"content": "x", "importance": -0.1}, ["importance"]),
        ({"content": "x", "importance": 1.1}, ["importance"]),
        ({"content": "x", "importance": 10**30}, ["importance"]),
        ({"content": "x", "visibility": "public"}, ["visibility"]),
        ({"content": "x", "visibility": True}, ["visibility"]),
        ({"content": "x", "validFrom": "10000-01-01T00:00:00Z"}, ["validFrom"]),
        ({"content": "x", "validFrom": 253_402_300_800_000}, ["validFrom"]),
        ({"content": "x", "validFrom": -(10**18)}, ["validFrom"]),
        ({"content": "x", "validTo": "soon"}, ["validTo"]),
        ({"content": "x", "validTo": False}, ["validTo"]),
        ({"content": "x", "validTo": {}}, ["validTo"]),
        ({"content": "x", "validFrom": 2, "validTo": 1}, ["validTo"]),
        ({"content": "x", "metadata": nested(200)}, []),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_body_that_is_wrong_is_told_where(
    http: httpx2.AsyncClient, admin_pool: Pool, body: Any, path: list[str | int]
) -> None:
    _team, key = await make_world(admin_pool)
    answer = await post(http, key, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "ValidationError"
    assert [issue["path"] for issue in answer.json()["issues"]] == [path]
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.memories") == 0


async def test_every_fault_is_told_at_once(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    answer = await post(http, key, content=1, tags=1, importance=2)
    assert [issue["path"] for issue in answer.json()["issues"]] == [["content"], ["tags"], ["importance"]]


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"x"', b"null", b"{", b'{"content": "x", "importance": NaN}'])
async def test_what_is_no_json_object_is_refused(http: httpx2.AsyncClient, admin_pool: Pool, raw: bytes) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(http, key, content="x")
    headers = {**key.headers, "Content-Type": "application/json"}
    for method, path in (
        ("POST", "/v1/memories"),
        ("PATCH", f"/v1/memories/{memory['id']}"),
        ("POST", f"/v1/memories/{memory['id']}/supersede"),
        ("POST", "/v1/projects"),
    ):
        answer = await http.request(method, path, content=raw, headers=headers)
        assert answer.status_code == 400, (method, path, answer.text)


async def test_the_outermost_of_what_may_be_said_is_stored(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(
        http,
        key,
        content="x",
        metadata=nested(198),
        title="\U0001f600" * 1000,
        tags=[f"{number}".ljust(200, "\u00e9") for number in range(100)],
        facts=["f" * 1000] * 1000,
        kind="k" * 200,
        importance=1,
        validFrom="0001-01-01T00:00:00Z",
        validTo="9999-12-31T23:59:59.999Z",
    )
    assert (memory["validFromEpoch"], memory["validToEpoch"]) == (-62_135_596_800_000, 253_402_300_799_999)
    assert len(memory["tags"]) == 100
    assert await read(http, key, memory["id"]) == memory


async def test_a_very_large_text_is_stored_and_comes_back(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    text = ("words of every kind " * 300_000)[: 5 * 1024 * 1024 - 100]
    memory = await write(http, key, content=text)
    assert memory["content"] == text
    assert (await patch(http, key, memory["id"], title="T")).status_code == 200
    assert (await supersede(http, key, memory["id"], content=text[:-1])).status_code == 201
    answer = await post(http, key, content=text + "x" * 200)
    assert answer.status_code == 413


@pytest.mark.parametrize("raw", [b"\\u0000", b"\\ud800", b"\\udfff\\ud800"])
async def test_what_postgres_cannot_hold_is_replaced(http: httpx2.AsyncClient, admin_pool: Pool, raw: bytes) -> None:
    _team, key = await make_world(admin_pool)
    body = (
        b'{"content": "a@b", "title": "a@b", "kind": "a@b", "type": "a@b", "tags": ["a@b"], "facts": ["a@b"],'
        b' "concepts": ["a@b"], "metadata": {"k@": {"x": "a@b"}}}'
    ).replace(b"@", raw)
    headers = {**key.headers, "Content-Type": "application/json"}
    answer = await http.post("/v1/memories", content=body, headers=headers)
    assert answer.status_code == 201, answer.text
    memory = answer.json()["memory"]
    assert memory["content"].startswith("a\ufffd")
    assert memory["tags"] == memory["metadata"]["facts"] == [memory["content"]]
    patched = await http.patch(f"/v1/memories/{memory['id']}", content=body, headers=headers)
    assert (patched.status_code, patched.json()["memory"]["content"]) == (200, memory["content"])
    for name in (b"projectId", b"serverSessionId"):
        odd = b'{"content": "x", "%s": "a@b"}'.replace(b"@", raw) % name
        assert (await http.post("/v1/memories", content=odd, headers=headers)).status_code == 403
    odd = b'{"content": "x", "supersedes": "a@b"}'.replace(b"@", raw)
    assert (await http.post("/v1/memories", content=odd, headers=headers)).status_code == 400
    odd = b'{"by": "a@b"}'.replace(b"@", raw)
    path = f"/v1/memories/{memory['id']}/supersede"
    assert (await http.post(path, content=odd, headers=headers)).status_code == 400


async def test_private_parts_and_secrets_are_stored_nowhere(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    text = f"before <private>hush</private> {GITHUB} after"
    said: dict[str, Any] = {
        "content": text,
        "title": text,
        "kind": text,
        "type": text,
        "subtitle": text,
        "facts": [text],
        "concepts": [text],
        "filesRead": [text],
        "tags": [text],
        "metadata": {text: [text], "password": "correct-horse"},
    }
    answer = await post(http, key, **said)
    assert answer.status_code == 201, answer.text
    memory = answer.json()["memory"]
    changed = await patch(http, key, memory["id"], **said)
    superseded = await supersede(http, key, memory["id"], **said)
    assert (changed.status_code, superseded.status_code) == (200, 201)
    stored = str(await admin_pool.fetch("SELECT * FROM commonplace.memories"))
    stored += str(await admin_pool.fetch("SELECT * FROM commonplace.audit_log"))
    for shown in (answer.text, changed.text, superseded.text, stored):
        assert "hush" not in shown
        assert GITHUB not in shown
        assert "correct-horse" not in shown
    assert memory["content"].startswith("before")


async def test_a_memory_of_which_nothing_is_left_is_stored_empty(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(
        http, key, content="<private>x</private>", kind="<private>k</private>", tags=["<private>t</private>"]
    )
    assert (memory["content"], memory["kind"], memory["tags"]) == ("", "manual", [])


async def test_paths_that_are_no_ids_lead_nowhere(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    for path in ("nonsense", "%00", "%ff", "\u00e9", "x" * 3000, "..%2f..", "0" * 36):
        answer = await http.get(f"/v1/memories/{path}", headers=key.headers)
        assert answer.status_code == 404, path
