"""`commonplace reindex`, run as a user runs it beside a keeper and without one."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from commonplace_runtime.services.keep_index import keep_indexes
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import make_memory, make_project, make_team
from tests.integration.runtime.cli.support import answer, commonplace, environment, said


@asynccontextmanager
async def kept(pool: Pool) -> AsyncIterator[None]:
    """A keeper, until the block ends."""

    async def keep() -> None:
        while True:
            await keep_indexes(pool)
            await asyncio.sleep(0.01)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def pending(pool: Pool) -> list[str]:
    rows = await pool.fetch("SELECT project_id FROM commonplace.search_work WHERE rebuild_from IS NOT NULL")
    return sorted(str(row["project_id"]) for row in rows)


async def test_a_project_a_team_or_everything_is_queued(database: Database, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool, "acme"), await make_team(admin_pool, "other")
    web = await make_project(admin_pool, team.id, "web")
    await make_memory(admin_pool, team, "one", project_id=web)
    (one,) = answer(database, "reindex", "--team", "acme", "--project", "web")
    assert one == {
        **one,
        "teamId": team.id,
        "team": "acme",
        "projectId": web,
        "project": "web",
        "status": "queued",
        "memories": 1,
        "indexed": 0,
    }
    assert await pending(admin_pool) == [web]
    assert {told["project"] for told in answer(database, "reindex", "--team", team.id)} == {"default", "web"}
    assert await pending(admin_pool) == sorted([web, team.project_id])
    lines = said(database, "reindex", "--all").splitlines()
    assert [line.split() for line in lines] == [
        ["team", "project", "status", "memories", "indexed"],
        ["acme", "default", "queued", "0", "0"],
        ["acme", "web", "queued", "1", "0"],
        ["other", "default", "queued", "0", "0"],
    ]
    assert await pending(admin_pool) == sorted([web, team.project_id, other.project_id])
    actors = await admin_pool.fetch("SELECT DISTINCT actor FROM commonplace.audit_log WHERE action LIKE 'index.%'")
    assert [row["actor"] for row in actors] == ["human:administrator"]


async def test_it_waits_until_all_is_done(database: Database, admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool, "acme")
    for number in range(3):
        await make_memory(admin_pool, team, f"memory {number}")
    async with kept(runtime_pool):
        done = await asyncio.to_thread(commonplace, database, "reindex", "--team", "acme", "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split() == ["acme", "default", "idle", "3", "3"]


async def test_a_terminal_counts_to_the_end(database: Database, admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool, "acme")
    for number in range(3):
        await make_memory(admin_pool, team, f"memory {number}")
    ours, theirs = os.openpty()
    try:
        async with kept(runtime_pool):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "commonplace_runtime", "reindex", "--team", "acme"),
                env=environment(database),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=theirs,
            )
            async with asyncio.timeout(60):
                assert await process.wait() == 0
        assert os.read(ours, 65536).decode().split("\r")[-2:] == ["indexed 3 of 3", "\n"]
    finally:
        os.close(ours)
        os.close(theirs)


async def test_ctrl_c_ends_the_waiting_and_leaves_it_queued(database: Database, admin_pool: Pool) -> None:
    team = await make_team(admin_pool, "acme")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commonplace_runtime", "reindex", "--team", "acme", "--wait"),
        env=environment(database),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        while not await pending(admin_pool):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, b"stays queued" in err) == (130, b"", True)
    assert await pending(admin_pool) == [team.project_id]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--team"),
        (("--project", "web"), "--team"),
        (("--all", "--team", "acme"), "--all"),
        (("--team", "nobody"), "no team"),
        (("--team", "acme", "--project", "nothing"), "no project"),
    ],
    ids=["nothing", "project alone", "both", "unknown team", "unknown project"],
)
async def test_what_names_no_index_is_refused_in_a_line(
    database: Database, admin_pool: Pool, words: tuple[str, ...], told: str
) -> None:
    await make_team(admin_pool, "acme")
    done = commonplace(database, "reindex", *words)
    assert (done.returncode, done.stdout, told in done.stderr) == (1, "", True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert await pending(admin_pool) == []
