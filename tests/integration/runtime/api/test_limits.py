"""What a stranger without a key may cost: bytes of headers, seconds, connections."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.entrypoints.http.protocol import MAX_HEAD_BYTES, BoundedHttp
from commonplace_runtime.observability import REQUESTS
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.factories import make_key, make_team


@asynccontextmanager
async def dialled(base_url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = httpx2.URL(base_url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()


def head(size: int) -> bytes:
    start = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str]]:
    """Status line and JSON body of an answer after which the server closes."""
    answer = await reader.read()
    start, _, body = answer.partition(b"\r\n\r\n")
    return start.split(b"\r\n")[0], json.loads(body)


async def test_headers_without_end_are_cut_off(base_url: str) -> None:
    async with dialled(base_url) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Long: ")
        sent = 0
        try:
            while not reader.at_eof() and sent < 50_000_000:
                writer.write(b"a" * 65536)
                await writer.drain()
                sent += 65536
                await asyncio.sleep(0)
        except ConnectionError:
            pass
    assert sent < 20_000_000, "what is over is in the kernel's buffers, not with us"


@pytest.mark.parametrize(("size", "status"), [(60_000, b"200"), (MAX_HEAD_BYTES + 1000, b"431"), (200_000, b"431")])
async def test_a_large_head_is_refused(base_url: str, size: int, status: bytes) -> None:
    async with dialled(base_url) as (reader, writer):
        writer.write(head(size))
        assert (await reader.readline()).split()[1] == status


async def test_a_refusal_of_headers_is_json(base_url: str) -> None:
    async with dialled(base_url) as (reader, writer):
        writer.write(head(MAX_HEAD_BYTES + 1000))
        line, body = await read_answer(reader)
    assert line == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert body["error"] == "HeadersTooLargeError"


async def test_many_requests_on_one_connection_are_counted_apart(http: httpx2.AsyncClient) -> None:
    for _ in range(5):
        assert (await http.get("/healthz", headers={"X-Long": "a" * 30_000})).status_code == 200


async def test_a_slow_head_is_told_so_and_a_silent_connection_closed(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttp, "head_seconds", 0.3)
    async with dialled(base_url) as (reader, _writer):
        assert await reader.read() == b""
    async with dialled(base_url) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        line, body = await read_answer(reader)
    assert (line, body["error"]) == (b"HTTP/1.1 408 Request Timeout", "RequestTimeoutError")
    async with dialled(base_url) as (reader, writer):
        writer.write(b"\r\n" * 3)
        assert await reader.read() == b""


@pytest.mark.parametrize("path", ["/v1/search", "/v1/mcp"])
async def test_a_slow_body_is_told_so(
    base_url: str, admin_pool: Pool, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(BoundedHttp, "body_seconds", 0.3)
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    async with dialled(base_url) as (reader, writer):
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.token}\r\nContent-Length: 100\r\n"
            'Content-Type: application/json\r\n\r\n{"query": '.encode()
        )
        line, body = await read_answer(reader)
    assert (line, body["error"]) == (b"HTTP/1.1 408 Request Timeout", "RequestTimeoutError")


async def test_a_waiting_request_outlives_the_time_for_its_body(
    http: httpx2.AsyncClient, admin_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttp, "body_seconds", 0.3)
    monkeypatch.setattr(BoundedHttp, "head_seconds", 0.3)
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    event = {"projectId": "default", "sourceType": "hook", "eventType": "x", "occurredAtEpoch": 1, "payload": {}}
    answer = await http.post("/v1/events?wait=true", json=event, headers=key.headers)
    assert (answer.status_code, answer.json()["waitTimedOut"]) == (201, True)


async def test_more_than_the_settings_allow_is_503_in_json(api_settings: Settings) -> None:
    settings = api_settings.model_copy(update={"api_concurrency": 2})
    async with served(create_app(settings), settings) as url, dialled(url), dialled(url) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        line, body = await read_answer(reader)
    assert (line, body["error"]) == (b"HTTP/1.1 503 Service Unavailable", "ServiceUnavailable")


@pytest.mark.parametrize("path", ["/v1/search", "/v1/mcp"])
async def test_a_client_that_leaves_is_not_our_fault(
    base_url: str, admin_pool: Pool, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    def count(status: str) -> float:
        return float(REQUESTS.labels("POST", path, status)._value.get())

    before = count("499"), count("500")
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    async with dialled(base_url) as (_reader, writer):
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.token}\r\nContent-Length: 100\r\n"
            'Content-Type: application/json\r\n\r\n{"query": '.encode()
        )
        await writer.drain()
    async with asyncio.timeout(10):
        while count("499") == before[0]:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
    assert (count("499"), count("500")) == (before[0] + 1, before[1])
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
