"""GET /v1/openapi.json."""

import httpx2

from commonplace_runtime.entrypoints.http.app import OPERATIONS
from commonplace_runtime.entrypoints.http.openapi import document


async def test_the_description_is_answered_without_a_key(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/v1/openapi.json")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json() == document(OPERATIONS)


async def test_who_has_it_already_is_told_so(http: httpx2.AsyncClient) -> None:
    tag = (await http.get("/v1/openapi.json")).headers["etag"]

    same = await http.get("/v1/openapi.json", headers={"If-None-Match": f'"other", W/{tag}'})
    other = await http.get("/v1/openapi.json", headers={"If-None-Match": '"other"'})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert other.status_code == 200
