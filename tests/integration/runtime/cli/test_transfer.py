"""`commonplace export` and `commonplace import`, from file to file."""

import asyncio
import json
import signal
import stat
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import Team, make_memory, make_project, make_team
from tests.integration.runtime.cli.support import answer, commonplace, environment, piped

HEADER = '{"type":"header","format":"commonplace","version":1}\n'


def records(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["type"] in ("memory", "event", "session")]


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def fill(pool: Pool, team: Team) -> None:
    later = await make_memory(pool, team, "later")
    await make_memory(pool, team, "earlier", superseded_by=later)
    await make_memory(pool, team, "hers", visibility="private", owner_actor="human:ada")
    await make_memory(pool, team, "web's", project_id=await make_project(pool, team.id, "web"))


async def test_a_team_moves_with_its_projects_and_private_memories(
    database: Database, admin_pool: Pool, tmp_path: Path
) -> None:
    team = await make_team(admin_pool)
    await fill(admin_pool, team)
    file = tmp_path / "team.ndjson"
    told = answer(database, "export", "--team", team.slug, "--to", str(file))
    assert (told["to"], told["counts"]) == (str(file), {"memory": 4})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path) == ["team.ndjson"]
    await admin_pool.execute("DELETE FROM commonplace.teams WHERE id = $1", UUID(team.id))
    await make_team(admin_pool, "new")

    words = ("import", "--team", "new", "--from", str(file))
    first = answer(database, *words)
    assert (first["imported"], first["complete"], first["errors"]) == (4, True, [])
    assert answer(database, *words)["unchanged"] == 4

    again = commonplace(database, "export", "--team", "new", "--to", "-")
    assert again.returncode == 0
    by_content = {line["content"]: line for line in records(file.read_text())}
    assert {line["content"]: line for line in records(again.stdout)} == by_content
    assert (by_content["hers"]["actor"], by_content["hers"]["visibility"]) == ("human:ada", "private")
    assert by_content["web's"]["project"] == "web"
    assert [line.split() for line in again.stderr.splitlines()] == [["exported", "count"], ["memory", "4"]]
    actor = "SELECT DISTINCT actor FROM commonplace.audit_log WHERE action LIKE 'memory.%'"
    assert [row["actor"] for row in await admin_pool.fetch(actor)] == ["human:administrator"]


async def test_one_project_is_exported_and_lands_where_it_is_told(
    database: Database, admin_pool: Pool, tmp_path: Path
) -> None:
    team = await make_team(admin_pool)
    await fill(admin_pool, team)
    await make_project(admin_pool, team.id, "copy")
    file = str(tmp_path / "web.ndjson")
    assert answer(database, "export", "--team", team.slug, "--project", "web", "--to", file)["counts"] == {"memory": 1}
    assert answer(database, "import", "--team", team.slug, "--project", "copy", "--from", file)["imported"] == 1
    copied = commonplace(database, "export", "--team", team.slug, "--project", "copy", "--to", "-")
    assert [line["content"] for line in records(copied.stdout)] == ["web's"]


async def test_wrong_lines_are_told_and_the_exit_code_says_so(database: Database, admin_pool: Pool) -> None:
    await make_team(admin_pool, "alpha")
    body = HEADER + '{"type":"memory","content":"fine"}\n{"type":"memory"}\nnonsense\n'
    done = piped(body.encode(), environment(database), "import", "--team", "alpha", "--from", "-")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == 'line 3: "content" is required'
    assert done.stderr.splitlines()[1].startswith("line 4: the line is not valid JSON")
    assert [line.split() for line in done.stdout.splitlines()][1] == ["imported", "1"]


@pytest.mark.parametrize(
    ("words", "given", "hint"),
    [
        (["import", "--team", "nobody", "--from", "-"], HEADER, "there is no team 'nobody'"),
        (["import", "--team", "alpha", "--from", "/nowhere/x"], "", "No such file or directory: '/nowhere/x'"),
        (["import", "--team", "alpha", "--from", "-"], "{}\n", "the first line must be a header"),
        (["import", "--team", "alpha", "--from", "-"], "", "the first line must be a header"),
        (["import", "--team", "alpha", "--from", "-", "--from-line", "0"], "", "--from-line"),
        (["import", "--team", "alpha", "--project", "x", "--from", "-"],
         HEADER + '{"type":"memory","content":"x"}', "Project not found"),
        (["export", "--team", "alpha", "--project", "x", "--to", "-"], "", "Project not found"),
        (["export", "--team", "alpha", "--to", "/nowhere/x"], "", "No such file or directory"),
        (["export", "--team", "alpha", "--to", "-", "--include", "all"], "", "`include` knows"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_one_line_with_what_to_do(
    database: Database, admin_pool: Pool, words: list[str], given: str, hint: str
) -> None:
    await make_team(admin_pool, "alpha")
    done = piped(given.encode(), environment(database), *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_an_interrupted_import_says_where_to_go_on(database: Database, admin_pool: Pool, tmp_path: Path) -> None:
    team = await make_team(admin_pool, "alpha")
    lines = [HEADER, *(f'{{"type":"memory","content":"m{n}"}}\n' for n in range(20_000)), '{"type":"end"}\n']
    file = tmp_path / "many.ndjson"
    file.write_text("".join(lines))
    words = [sys.executable, "-m", "commonplace_runtime", "import", "--team", "alpha", "--from", str(file), "--json"]
    process = await asyncio.create_subprocess_exec(
        *words, env=environment(database), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stored = "SELECT count(*) FROM commonplace.memories WHERE team_id = $1"
    async with asyncio.timeout(60):
        while await admin_pool.fetchval(stored, UUID(team.id)) == 0:  # noqa: ASYNC110 - it says nothing yet
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    told = json.loads(out)
    assert process.returncode == 130
    assert told["interrupted"] is True
    count = await admin_pool.fetchval(stored, UUID(team.id))
    assert 0 < count < 20_000
    assert told["nextLine"] == count + 2
    assert err.decode().splitlines()[-1] == f"interrupted: go on with --from-line {told['nextLine']}"
    assert "Traceback" not in err.decode()
    # The rest, cut to what a test has time for.
    file.write_text("".join([*lines[: told["nextLine"] + 299], lines[-1]]))
    done = commonplace(database, *words[3:], "--from-line", str(told["nextLine"]))
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["imported"], json.loads(done.stdout)["complete"]) == (300, True)
