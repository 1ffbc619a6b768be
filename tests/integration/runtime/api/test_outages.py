"""Postgres away at start, away at run time, and back."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import open_pool
from tests.api_server import served
from tests.factories import Key, make_event, make_key, make_team

PROGRAM = """
import sys, uvloop
from commonplace_runtime.entrypoints.http.serve import serve_api
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.settings import Settings
configure_logging("info", "json")
settings = Settings.model_validate({"database_url": sys.argv[1], "port": 0, "startup_timeout_seconds": 60})
uvloop.run(serve_api(settings, on_listening=lambda port: print(port, flush=True)))
"""


@pytest.fixture
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        async with await open_pool(
            server.url(), size=1, connect_timeout=10, statement_timeout=30, application="tests"
        ) as pool:
            await migrate(pool, with_roles=True)
            await pool.execute("CREATE ROLE own_runtime LOGIN IN ROLE commonplace_runtime")
        yield server


async def make_own_key(server: EmbeddedPostgres) -> Key:
    async with await open_pool(
        server.url(), size=1, connect_timeout=10, statement_timeout=30, application="tests"
    ) as pool:
        return await make_key(pool, (await make_team(pool)).id)


async def test_the_api_answers_503_while_postgres_is_away_and_recovers_by_itself(
    own_postgres: EmbeddedPostgres,
) -> None:
    key = await make_own_key(own_postgres)
    settings = Settings.model_validate({"database_url": own_postgres.url(user="own_runtime")})
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    async with served(create_app(settings)) as url, httpx2.AsyncClient(base_url=url, timeout=30) as http:
        stored = await http.post("/v1/events", json=make_event(), headers=key.headers)
        assert stored.status_code == 201
        own_postgres.kill()
        for path, body in (("/v1/events", make_event()), ("/v1/search", {"query": "x"}), ("/v1/mcp", message)):
            answer = await http.post(path, json=body, headers=key.headers)
            assert answer.status_code == 503, path
            assert answer.json()["error"] == "ServiceUnavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert "own_runtime" not in answer.text
        assert (await http.get("/api/readiness")).status_code == 503
        assert (await http.get("/healthz")).status_code == 200
        own_postgres.start()
        again = await http.post("/v1/events", json=make_event(), headers=key.headers)
        assert again.status_code == 201
        assert again.json()["event"]["id"] == stored.json()["event"]["id"], "what was acknowledged is there"
        assert (await http.get("/api/readiness")).status_code == 200


async def test_credentials_that_end_are_503_until_they_are_put_right(own_postgres: EmbeddedPostgres) -> None:
    key = await make_own_key(own_postgres)
    settings = Settings.model_validate({"database_url": own_postgres.url(user="own_runtime")})
    admin = await asyncpg.connect(own_postgres.url())
    try:
        async with served(create_app(settings)) as url, httpx2.AsyncClient(base_url=url, timeout=30) as http:
            for end, heal in (
                ("ALTER ROLE own_runtime NOLOGIN", "ALTER ROLE own_runtime LOGIN"),
                ("REVOKE commonplace_runtime FROM own_runtime", "GRANT commonplace_runtime TO own_runtime"),
                ("ALTER SCHEMA commonplace RENAME TO away", "ALTER SCHEMA away RENAME TO commonplace"),
            ):
                await admin.execute(end)
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'own_runtime'"
                )
                for path, body in (("/v1/events", make_event()), ("/v1/search", {"query": "x"})):
                    answer = await http.post(path, json=body, headers=key.headers)
                    assert (answer.status_code, answer.json()["error"]) == (503, "ServiceUnavailable"), (end, path)
                assert (await http.get("/api/readiness")).status_code == 503, end
                await admin.execute(heal)
                assert (await http.post("/v1/events", json=make_event(), headers=key.headers)).status_code == 201
    finally:
        await admin.close()


async def test_the_api_waits_for_postgres_at_start_and_ends_cleanly_on_sigterm(
    own_postgres: EmbeddedPostgres,
) -> None:
    own_postgres.kill()
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        own_postgres.url(user="own_runtime"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert program.stdout is not None
    assert program.stderr is not None
    try:
        async with asyncio.timeout(30):
            line = (await program.stderr.readline()).decode()
        assert "database_unreachable" in line
        assert "retry_in_seconds" in line
        own_postgres.start()
        async with asyncio.timeout(30):
            port = int(await program.stdout.readline())
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get(contract.READINESS_PATH)).status_code == 200
        program.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def takes_connections(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def test_a_request_in_flight_is_answered_before_the_api_ends(own_postgres: EmbeddedPostgres) -> None:
    key = await make_own_key(own_postgres)
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        own_postgres.url(user="own_runtime"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert program.stdout is not None
    admin = await asyncpg.connect(own_postgres.url())
    try:
        async with asyncio.timeout(30):
            port = int(await program.stdout.readline())
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=40) as http:
            waiting = asyncio.create_task(http.post("/v1/events?wait=true", json=make_event(), headers=key.headers))
            async with asyncio.timeout(10):
                while (job_id := await admin.fetchval("SELECT id FROM commonplace.jobs")) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            program.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while await takes_connections(port):  # noqa: ASYNC110 - another process closes it
                    await asyncio.sleep(0.01)
            assert not waiting.done()
            await admin.execute("UPDATE commonplace.jobs SET status = 'completed', completed_at = now()")
            await admin.execute("SELECT pg_notify('commonplace_jobs', $1::text)", str(job_id))
            async with asyncio.timeout(20):
                answer = await waiting
        assert answer.status_code == 201
        assert answer.json()["generationJob"]["status"] == "completed"
        async with asyncio.timeout(20):
            assert await program.wait() == 0
    finally:
        await admin.close()
        if program.returncode is None:
            program.kill()
            await program.wait()
