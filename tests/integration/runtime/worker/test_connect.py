"""What the guides tell people to type at curl, run as it stands there, one line after the other."""

import asyncio
import os
import re
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from commonplace_runtime.embedded import EmbeddedRedis
from commonplace_runtime.entrypoints.doorbell import TaskiqDoorbell
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.conftest import Database
from tests.factories import make_key, make_team
from tests.howto import CONNECT, MCP, TRANSFER, Command, commands
from tests.integration.runtime.worker.support import started_worker, worker_settings

LINES = [command for document in (CONNECT, MCP, TRANSFER) for command in commands(document, "curl", "tail", "gzip")]


async def _run(line: str, folder: Path, environ: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", line, cwd=folder, env=environ, stdout=PIPE, stderr=PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, f"{line}\n{errors.decode()}"
    return output.decode()


def _fields(text: str) -> set[str]:
    return set(re.findall(r'"(\w+)":', text))


def _check(command: Command, answer: str) -> None:
    assert _fields(command.output) <= _fields(answer), f"{command.line}\n{answer}"
    assert ('"error":' in answer) == ('"error":' in command.output), f"{command.line}\n{answer}"
    if re.fullmatch(r'("name":"\w+"\n)+', command.output):
        assert answer == command.output
    if '"status":"completed"' in command.output:
        assert '"status":"completed"' in answer, answer


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
async def test_the_lines_of_the_guides_answer_what_they_show(
    admin_pool: Pool, database: Database, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    settings = worker_settings(database, COMMONPLACE_REDIS_URL=redis_server.url)
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    bell = TaskiqDoorbell(redis_server.url)
    async with started_worker(settings), served(create_app(settings, doorbell=bell)) as url:
        environ = {"PATH": os.environ["PATH"], "COMMONPLACE_URL": url, "COMMONPLACE_TOKEN": key.token}
        for command in LINES:
            _check(command, await _run(command.line, tmp_path, environ))
    await bell.aclose()
