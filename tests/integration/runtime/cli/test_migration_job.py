"""`commonplace migrate` as a Job runs it: it makes roles and log-ins, and always leaves a report."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from commonplace_runtime import contract
from commonplace_runtime.contract import MigrationReport
from commonplace_runtime.embedded import EmbeddedPostgres

RUNTIME_PASSWORD, OPERATOR_PASSWORD = "hunter2-runtime", "hunter2-operator"
OWNER_PASSWORD = "hunter2-owner"
HBA = "local all postgres trust\nlocal all all scram-sha-256\n"


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("COMMONPLACE_", "CLAUDE_MEM_"))}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server of its own, because roles belong to a server; only its superuser needs no password."""

    postgres: EmbeddedPostgres
    folder: Path

    def url(self, user: str, password: str = "", database: str = "memory") -> str:
        url = self.postgres.url(user=user, database=database)
        return url.replace("@", f":{quote(password, safe='')}@", 1) if password else url

    @property
    def log(self) -> str:
        return (self.folder / "server" / "postgres.log").read_text()

    @asynccontextmanager
    async def superuser(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            yield connection
        finally:
            await connection.close()

    def job(
        self,
        owner: str,
        environ: Mapping[str, str] = MappingProxyType({}),
        *,
        words: tuple[str, ...] = ("--create-roles",),
    ) -> "Done":
        logins = {
            contract.ENV_RUNTIME_LOGIN_URL: self.url("main_runtime", RUNTIME_PASSWORD),
            contract.ENV_OPERATOR_LOGIN_URL: self.url("main_operator", OPERATOR_PASSWORD),
        }
        return run_job(
            self.folder / "report.json", words, {contract.ENV_ADMIN_DATABASE_URL: owner, **logins, **environ}
        )


def run_job(report: Path, words: tuple[str, ...], environ: Mapping[str, str]) -> "Done":
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "commonplace_runtime", "migrate", *words, "--report-to", str(report)],
        env={**clean_environment(), "COMMONPLACE_STARTUP_TIMEOUT_SECONDS": "1", **environ},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return Done(code=done.returncode, output=done.stdout + done.stderr, text=report.read_text())


def run_to_the_end(command: tuple[str, ...], environ: dict[str, str]) -> str:
    return subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, timeout=90, check=True).stdout


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a run ended."""

    code: int
    output: str
    text: str

    @property
    def report(self) -> MigrationReport:
        report = MigrationReport.from_json(self.text)
        assert report is not None, self.text
        return report

    def failed(self, reason: str, code: int = 1) -> MigrationReport:
        assert (self.code, self.report.outcome, self.report.reason) == (code, "failed", reason), self.output
        assert "Traceback" not in self.output
        return self.report


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parents are closed to the server's own user
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "hba").write_text(HBA)
        settings = {"fsync": "off", "hba_file": str(folder / "hba"), "log_statement": "all"}
        with EmbeddedPostgres(folder / "server", settings=settings) as postgres:
            yield Server(postgres=postgres, folder=folder)


async def make_database(server: Server, *, rights: str) -> str:
    """A database `memory` and its owner; returns the owner's connection string."""
    connection = await asyncpg.connect(server.url("postgres", database="postgres"))
    try:
        await connection.execute(f"CREATE ROLE app LOGIN {rights} PASSWORD '{OWNER_PASSWORD}'")
        await connection.execute("CREATE DATABASE memory OWNER app")
    finally:
        await connection.close()
    return server.url("app", OWNER_PASSWORD)


async def can_serve(server: Server, *, runtime: str = RUNTIME_PASSWORD, operator: str = OPERATOR_PASSWORD) -> None:
    for user, password in (("main_runtime", runtime), ("main_operator", operator)):
        connection = await asyncpg.connect(server.url(user, password))
        try:
            assert await connection.fetchval("SELECT commonplace.schema_version_v1()") == contract.SCHEMA_VERSION
        finally:
            await connection.close()


async def stored(server: Server) -> dict[str, Any]:
    async with server.superuser() as connection:
        rows = await connection.fetch("SELECT * FROM pg_authid WHERE rolname !~ '^pg_'")
        return {row["rolname"]: dict(row) for row in rows}


@pytest.mark.parametrize("rights", ["CREATEROLE", "SUPERUSER"])
async def test_an_owner_who_may_create_roles_needs_one_run_and_the_next_changes_nothing(
    server: Server, rights: str
) -> None:
    owner = await make_database(server, rights=rights)

    first = server.job(owner)
    assert first.report == MigrationReport(
        outcome="migrated",
        reason="Migrated",
        message=f"the schema is at version {contract.SCHEMA_VERSION}",
        schema_version=contract.SCHEMA_VERSION,
    )
    await can_serve(server)
    roles = await stored(server)
    for name in ("main_runtime", "main_operator"):
        role = roles[name]
        assert not any(role[right] for right in ("rolsuper", "rolcreaterole", "rolcreatedb", "rolbypassrls"))

    second = server.job(owner)
    assert second.report == first.report
    assert await stored(server) == roles


async def test_no_password_is_told_to_anybody(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    runs = [server.job(owner)]
    async with server.superuser() as connection:
        await connection.execute("ALTER ROLE app NOCREATEROLE")
        await connection.execute("ALTER ROLE main_runtime PASSWORD 'forgotten'")
    runs.append(server.job(owner))

    runs[1].failed("DatabaseRolesMissing")
    for run in runs:
        for password in (RUNTIME_PASSWORD, OPERATOR_PASSWORD, OWNER_PASSWORD):
            assert password not in run.output + run.text
    assert "SCRAM" not in "".join(run.output + run.text for run in runs)
    assert "CREATE ROLE main_runtime" in server.log
    assert RUNTIME_PASSWORD not in server.log
    assert OPERATOR_PASSWORD not in server.log


@pytest.mark.parametrize("password", ["pass word%/#?@:", "Grüße", "Ⅳ\u00a0\u00adx", "שלום", "שלוםx", 'it\'s \\ "$1"'])
async def test_every_password_that_postgres_takes_works(server: Server, password: str) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    url = server.url("main_runtime", password)
    done = server.job(owner, {contract.ENV_RUNTIME_LOGIN_URL: url})
    assert done.report.outcome == "migrated", done.report
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.url("main_runtime", "another"))


async def test_a_password_that_was_minted_again_replaces_the_old(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    server.job(owner)
    renewed = {contract.ENV_RUNTIME_LOGIN_URL: server.url("main_runtime", "renewed")}
    assert server.job(owner, renewed).report.outcome == "migrated"
    await can_serve(server, runtime="renewed")


async def test_an_owner_without_the_right_is_given_the_sql_and_nothing_is_touched(server: Server) -> None:
    owner = await make_database(server, rights="")
    before = await stored(server)

    report = server.job(owner).failed("DatabaseRolesMissing")

    assert await stored(server) == before
    async with server.superuser() as administrator:
        assert await administrator.fetchval("SELECT to_regnamespace('commonplace')") is None
        for role in (contract.ROLE_OWNER, contract.ROLE_RUNTIME, contract.ROLE_OPERATOR, contract.ROLE_ADMIN):
            assert f"CREATE ROLE {role} NOLOGIN NOBYPASSRLS;" in report.sql
        assert "GRANT commonplace_owner TO app;" in report.sql
        assert "PASSWORD '<from the Secret, key runtime-uri>'" in report.sql
        sql = report.sql.replace("<from the Secret, key runtime-uri>", RUNTIME_PASSWORD)
        await administrator.execute(sql.replace("<from the Secret, key operator-uri>", OPERATOR_PASSWORD))
    after = await stored(server)
    done = server.job(owner)
    assert done.report.outcome == "migrated", done.report
    assert await stored(server) == after
    await can_serve(server)


async def test_only_what_is_missing_is_asked_of_an_administrator(server: Server) -> None:
    owner = await make_database(server, rights="")
    async with server.superuser() as administrator:
        sql = server.job(owner).report.sql
        await administrator.execute("".join(line for line in sql.splitlines() if "main_" not in line))
        report = server.job(owner).failed("DatabaseRolesMissing")
    assert re.fullmatch(r"CREATE ROLE main_runtime LOGIN [^;]*;\n?", report.sql)
    assert "main_runtime" in report.message


async def test_a_login_of_somebody_else_that_works_is_left_as_it_is(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    server.job(owner)
    async with server.superuser() as administrator:
        await administrator.execute(f"CREATE ROLE theirs LOGIN PASSWORD 'their own' IN ROLE {contract.ROLE_RUNTIME}")
    before = await stored(server)
    done = server.job(owner, {contract.ENV_RUNTIME_LOGIN_URL: server.url("theirs", "their own")})
    assert done.report.outcome == "migrated", done.report
    assert await stored(server) == before


async def test_a_login_that_lacks_only_the_membership_keeps_its_password(server: Server) -> None:
    owner = await make_database(server, rights="SUPERUSER")
    async with server.superuser() as administrator:
        await administrator.execute(f"CREATE ROLE main_runtime LOGIN NOINHERIT PASSWORD '{RUNTIME_PASSWORD}'")
    before = await stored(server)
    assert server.job(owner).report.outcome == "migrated"
    after = await stored(server)
    assert after["main_runtime"] == before["main_runtime"]
    await can_serve(server)


async def test_an_administrators_role_is_neither_used_to_serve_nor_given_a_password(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    server.job(owner)
    async with server.superuser() as administrator:
        await administrator.execute("CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'known'")
    before = await stored(server)
    for password, hint in (("known", "row-level security"), ("guessed", "administrator's role")):
        done = server.job(owner, {contract.ENV_RUNTIME_LOGIN_URL: server.url("boss", password)})
        assert hint in done.failed("DatabaseRefused").message
        done = server.job(owner, {contract.ENV_RUNTIME_LOGIN_URL: server.url("app", password)})
        assert "administrator's role" in done.failed("DatabaseRefused").message
    assert await stored(server) == before


async def test_the_password_of_another_programs_role_is_never_changed(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    server.job(owner)
    async with server.superuser() as administrator:
        await administrator.execute("CREATE ROLE billing LOGIN PASSWORD 'theirs'")
        await administrator.execute("GRANT billing TO app WITH ADMIN OPTION")
    before = await stored(server)
    done = server.job(owner, {contract.ENV_RUNTIME_LOGIN_URL: server.url("billing", "mistyped")})
    assert "correct the password" in done.failed("DatabaseRefused").message
    assert await stored(server) == before


async def test_a_login_that_reaches_another_database_is_told(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    wrong = {contract.ENV_OPERATOR_LOGIN_URL: server.url("main_operator", OPERATOR_PASSWORD, database="postgres")}
    message = server.job(owner, wrong).failed("DatabaseRefused").message
    assert message.startswith(contract.ENV_OPERATOR_LOGIN_URL)
    assert "another database" in message


async def test_two_jobs_at_once_both_succeed(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    command = (sys.executable, "-m", "commonplace_runtime", "migrate", "--create-roles")
    environ = clean_environment() | {
        contract.ENV_ADMIN_DATABASE_URL: owner,
        contract.ENV_RUNTIME_LOGIN_URL: server.url("main_runtime", RUNTIME_PASSWORD),
        contract.ENV_OPERATOR_LOGIN_URL: server.url("main_operator", OPERATOR_PASSWORD),
    }
    told = await asyncio.gather(*(asyncio.to_thread(run_to_the_end, command, environ) for _ in range(2)))
    lines = sorted("".join(told).splitlines())
    assert [line for line in lines if line.startswith("made")] == [
        "made the log-in main_operator",
        "made the log-in main_runtime",
    ]
    assert len([line for line in lines if line.startswith("applied")]) == contract.SCHEMA_VERSION
    await can_serve(server)


async def test_a_newer_schema_is_left_alone_unless_allowed(server: Server) -> None:
    owner = await make_database(server, rights="CREATEROLE")
    server.job(owner)
    newer = contract.SCHEMA_VERSION + 1
    async with server.superuser() as administrator:
        await administrator.execute(
            "INSERT INTO commonplace.schema_migrations (version, name, checksum) VALUES ($1, 'later', 'x')", newer
        )
        await administrator.execute("DROP ROLE main_runtime")
    before = await stored(server)

    report = server.job(owner).failed("SchemaNewer")

    assert report.schema_version == newer
    assert await stored(server) == before
    allowed = server.job(owner, words=("--create-roles", "--allow-newer-schema")).report
    assert (allowed.outcome, allowed.schema_version) == ("migrated", newer)
    assert "main_runtime" in await stored(server)


async def test_a_migration_that_fails_is_named(server: Server) -> None:
    owner = await make_database(server, rights="SUPERUSER")
    async with server.superuser() as administrator:
        await administrator.execute(
            "CREATE ROLE commonplace_owner; GRANT CREATE ON DATABASE memory TO commonplace_owner"
        )
        await administrator.execute("CREATE SCHEMA commonplace AUTHORIZATION commonplace_owner")
        await administrator.execute("CREATE TABLE commonplace.teams (x int)")
    report = server.job(owner).failed("MigrationFailed")
    assert "0001_tables failed and was rolled back" in report.message
    assert report.sql == ""


async def test_what_an_administrator_must_put_right_is_told_apart_from_what_time_heals(server: Server) -> None:
    await make_database(server, rights="CREATEROLE")
    assert "app" in server.job(server.url("app", "wrong")).failed("DatabaseRefused").message
    server.job(server.url("app", OWNER_PASSWORD, database="nothing")).failed("DatabaseRefused")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    server.job(f"postgresql://app:x@127.0.0.1:{port}/memory").failed("DatabaseUnavailable")
    away = {contract.ENV_RUNTIME_LOGIN_URL: f"postgresql://main_runtime:x@127.0.0.1:{port}/memory"}
    report = server.job(server.url("app", OWNER_PASSWORD), away).failed("DatabaseUnavailable")
    assert report.message.startswith(contract.ENV_RUNTIME_LOGIN_URL)


@pytest.mark.parametrize(
    ("environ", "reason", "hint"),
    [
        ({contract.ENV_ADMIN_DATABASE_URL: ""}, "DatabaseRefused", contract.ENV_ADMIN_DATABASE_URL),
        ({contract.ENV_ADMIN_DATABASE_URL: "host=db secret"}, "DatabaseRefused", "must look like postgresql://"),
        ({contract.ENV_RUNTIME_LOGIN_URL: "postgresql://db/x"}, "DatabaseRefused", "must name the user"),
        (
            {
                contract.ENV_RUNTIME_LOGIN_URL: "postgresql://one:secret@db/x",
                contract.ENV_OPERATOR_LOGIN_URL: "postgresql://one:other@db/x",
            },
            "DatabaseRefused",
            "name one role",
        ),
        ({"COMMONPLACE_LOG_LEVEL": "loud"}, "MigrationFailed", "COMMONPLACE_LOG_LEVEL"),
    ],
)
def test_a_misconfiguration_is_reported_too(tmp_path: Path, environ: dict[str, str], reason: str, hint: str) -> None:
    whole = {
        contract.ENV_ADMIN_DATABASE_URL: "postgresql://app:secret@db/x",
        contract.ENV_RUNTIME_LOGIN_URL: "postgresql://runtime:secret@db/x",
        contract.ENV_OPERATOR_LOGIN_URL: "postgresql://operator:secret@db/x",
    }
    done = run_job(tmp_path / "report.json", (), whole | environ)
    report = done.failed(reason, code=78)
    assert hint in report.message
    assert "secret" not in done.output + done.text


def test_a_report_that_cannot_be_written_does_not_change_the_outcome(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "commonplace_runtime", "migrate", "--report-to", str(tmp_path / "no" / "where")],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "the report cannot be written" in done.stderr
