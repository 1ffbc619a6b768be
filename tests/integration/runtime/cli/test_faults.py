"""What can go wrong at a terminal: one line that says what to do, an exit code, no traceback and no password."""

import socket
import subprocess
import sys

import asyncpg
import pytest

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres
from tests.conftest import Database


def run(*words: str | bytes, **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "commonplace_runtime", *words],
        env={"PATH": "/usr/bin:/bin", "COMMONPLACE_STARTUP_TIMEOUT_SECONDS": "5", **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[bytes], hint: str) -> None:
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("commonplace: ")
    assert hint in line
    assert done.stdout == b""


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret#pw@localhost/db",
        "postgresql://u:secret/pw@localhost/db",
        "postgresql://u:secret?pw@localhost/db",
        "postgresql://u:secret@pw@localhost/db",
        "postgresql://u:[secret]pw@localhost/db",
    ],
)
def test_an_address_that_does_not_parse_exits_78_and_is_not_repeated(url: str) -> None:
    done = run("teams", "list", COMMONPLACE_ADMIN_DATABASE_URL=url)
    assert done.returncode == 78
    assert b"COMMONPLACE_ADMIN_DATABASE_URL: must look like" in done.stderr
    assert b"secret" not in done.stderr
    assert b"pw" not in done.stderr


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@a:5432,b:5433/db", "postgresql://u@/db?host=/run/x", "postgres://u:p%23@[::1]:5432/db"]
)
def test_addresses_that_postgres_takes_are_taken(url: str) -> None:
    done = run("migrate", COMMONPLACE_ADMIN_DATABASE_URL=url, COMMONPLACE_PORT="eleventy")
    assert b"DATABASE_URL" not in done.stderr


def test_a_taken_port_is_named(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"COMMONPLACE_PORT": port, "COMMONPLACE_METRICS_PORT": "0"}
        refused(run("api", COMMONPLACE_DATABASE_URL=database.runtime_url, **ports), contract.ENV_PORT)
        for verb in ("api", "worker"):
            done = run(verb, COMMONPLACE_DATABASE_URL=database.runtime_url, COMMONPLACE_METRICS_PORT=port)
            refused(done, contract.ENV_METRICS_PORT)


def test_another_role_sees_no_empty_table_but_what_is_wrong(database: Database) -> None:
    for words in (["teams", "list"], ["keys", "list"], ["teams", "create", "x"]):
        done = run(*words, COMMONPLACE_ADMIN_DATABASE_URL=database.runtime_url)
        refused(done, "connect as a member of commonplace_admin")


def test_only_an_owner_migrates(database: Database) -> None:
    done = run("migrate", COMMONPLACE_ADMIN_DATABASE_URL=database.runtime_url)
    refused(done, contract.ENV_ADMIN_DATABASE_URL)
    done = run("migrate", "--create-roles", COMMONPLACE_ADMIN_DATABASE_URL=database.operator_url)
    refused(done, contract.ENV_ADMIN_DATABASE_URL)


async def test_a_database_without_our_schema_is_told_apart(postgres: EmbeddedPostgres, database: Database) -> None:
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute(f"CREATE DATABASE {database.name}_bare")
        done = run("teams", "list", COMMONPLACE_ADMIN_DATABASE_URL=postgres.url(database=f"{database.name}_bare"))
        refused(done, "commonplace migrate")
    finally:
        await connection.execute(f"DROP DATABASE {database.name}_bare WITH (FORCE)")
        await connection.close()


def test_wrong_credentials_and_names_are_told(postgres: EmbeddedPostgres, database: Database) -> None:
    for url in (postgres.url(user="nobody"), postgres.url(database="nothing")):
        refused(run("teams", "list", COMMONPLACE_ADMIN_DATABASE_URL=url), contract.ENV_ADMIN_DATABASE_URL)


def test_an_argument_that_is_no_text_is_refused(database: Database) -> None:
    done = run("teams", "create", b"caf\xe9", COMMONPLACE_ADMIN_DATABASE_URL=database.admin_url)
    refused(done, "UTF-8")
