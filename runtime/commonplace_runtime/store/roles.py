"""The group roles and the log-ins of a database: what is missing, and making it where we may."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict, Unavailable
from commonplace_runtime.domain.scram import SALT_BYTES, scram_verifier
from commonplace_runtime.store.pool import Connection, Record, Refused, faults_as_unavailable, refusals_told
from commonplace_runtime.store.sql import statements

MIGRATION_LOCK: Final = 0x636F6D6D6F6E  # "common"; any constant that nobody else locks

_SQL = statements("roles_missing")
_CREDENTIALS: Final = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InsufficientPrivilegeError,
)


class RolesMissing(Conflict):
    """Roles or grants are missing that the connecting role may not make; `sql`: what an administrator must run."""

    def __init__(self, message: str, sql: str) -> None:
        super().__init__(message)
        self.sql = sql


@dataclass(frozen=True, kw_only=True)
class Login:
    """
    A log-in role that shall exist and be a member of `group`.

    url: how it connects. variable: where `url` came from. secret_key: where an administrator finds it.
    """

    url: str = field(repr=False)
    group: str
    variable: str
    secret_key: str

    @property
    def name(self) -> str:
        """The role's name."""
        parts = urlsplit(self.url)
        return unquote(parts.username or "") or parse_qs(parts.query).get("user", [""])[0]

    @property
    def verifier(self) -> str | None:
        """A fresh verifier of its password; None where the connection string has none."""
        parts = urlsplit(self.url)
        password = unquote(parts.password or "") or parse_qs(parts.query).get("password", [""])[0]
        return scram_verifier(password, secrets.token_bytes(SALT_BYTES)) if password else None

    @property
    def placeholder(self) -> str:
        """What stands for the password in statements that people see."""
        return f"<from the Secret, key {self.secret_key}>"


async def missing_statements(connection: Connection, logins: Sequence[Login] = ()) -> Sequence[str]:
    """
    What an administrator would have to run, in order; empty when the group roles, the grants and `logins` suffice.

    A log-in that exists counts as it is: whether its password is right only connecting tells.
    """
    found = [row["statement"] for row in await connection.fetch(_SQL["group_statements"])]
    for login in logins:
        found += await _login_statements(connection, login, login.placeholder, works=True)
    return found


async def ensure_groups(connection: Connection, logins: Sequence[Login], *, may_create: bool) -> None:
    """
    Make the group roles and grants that are missing; nothing is touched when none is.

    logins: named in the statements for an administrator. Raises RolesMissing, or Refused for the runtime's own role.
    """
    async with locked(connection):
        if not await connection.fetch(_SQL["group_statements"]):
            return
        if await connection.fetchval(_SQL["is_served_role"]):
            raise Refused("this role is one that serves, not one that owns the schema")
        told = "roles or grants are missing: run `commonplace migrate --create-roles` as a role with CREATEROLE"
        if may_create:
            try:
                async with connection.transaction():
                    text = (files("commonplace_runtime.store") / "roles.sql").read_text(encoding="utf-8")
                    await connection.execute(text)
            except asyncpg.InsufficientPrivilegeError as error:
                told = f"roles or grants are missing that this role may not make ({error})"
            else:
                return
        raise RolesMissing(f"{told}, or let an administrator run the SQL", await _sql(connection, logins))


async def ensure_logins(connection: Connection, logins: Sequence[Login], *, connect_timeout: float) -> Sequence[str]:
    """
    Make every log-in exist with its password and its membership; one that works is left as it is.

    Returns the names of those that were made or changed. Raises RolesMissing where this role may not, Refused for an
    administrator's role, which is never altered, for another program's, whose password is not, and for a connection
    string that no change of a role puts right.
    """
    changed = []
    async with locked(connection):
        for login in logins:
            works = await _works(login, connect_timeout)
            wanted = await _login_statements(connection, login, login.verifier, works=works)
            if not wanted:
                continue
            if await connection.fetchval(_SQL["is_powerful"], login.name):
                raise Refused(
                    f"{login.variable}: {login.name} cannot log in with it or lacks {login.group}, and is left alone "
                    "because it is an administrator's role: name a role of its own"
                )
            if not works and await connection.fetchval(_SQL["is_strangers"], login.name, login.group):
                raise Refused(
                    f"{login.variable}: {login.name} cannot log in with it, and its password is left alone because it "
                    f"is no member of {login.group}: correct the password, or name a role of its own"
                )
            try:
                async with connection.transaction():
                    for statement in wanted:
                        await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError as error:
                shown = await _login_statements(connection, login, login.placeholder, works=works)
                raise RolesMissing(
                    f"the log-in {login.name} is missing or does not work, and this role may not make it ({error}): "
                    "let an administrator run the SQL",
                    _script(shown),
                ) from None  # the statement holds the verifier
            changed.append(login.name)
    return changed


async def check_login(login: Login, *, schema: int, connect_timeout: float) -> None:
    """
    That `login` reaches a database at `schema` as a member of its group; the runtime's must not act as the owner.

    Raises Refused with what is wrong, Unavailable when it does not answer.
    """
    async with _reached(login, connect_timeout) as connection:
        facts = await connection.fetchrow(_SQL["own_facts"], login.group)
        if facts is None or not facts["is_member"]:
            raise Refused(f"{login.variable}: {login.name} is no member of {login.group} on the server that it reaches")
        if login.group == contract.ROLE_RUNTIME and facts["is_owner"]:
            raise Refused(
                f"{login.variable}: {login.name} may act as {contract.ROLE_OWNER} or pass row-level security, so one "
                "team's rows would not be closed to another: name a role that only serves"
            )
        try:
            found = await connection.fetchval("SELECT commonplace.schema_version_v1()")
        except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError):
            found = None
    if found != schema:
        raise Refused(f"{login.variable}: it reaches another database than {contract.ENV_ADMIN_DATABASE_URL}")


@asynccontextmanager
async def locked(connection: Connection) -> AsyncIterator[None]:
    """A transaction in which no other migration run of this database is at the same point."""
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '60s'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        await connection.execute("SET LOCAL lock_timeout = '10s'")
        yield


async def _login_statements(
    connection: Connection, login: Login, password: str | None, *, works: bool
) -> Sequence[str]:
    rows: Sequence[Record] = await connection.fetch(_SQL["login_statements"], login.name, login.group, password, works)
    return [row["statement"] for row in rows]


async def _sql(connection: Connection, logins: Sequence[Login]) -> str:
    return _script(await missing_statements(connection, logins))


def _script(found: Sequence[str]) -> str:
    return "".join(f"{statement};\n" for statement in found)


async def _works(login: Login, connect_timeout: float) -> bool:
    """Whether it can connect; False where another password, a membership or a new role may change that."""
    try:
        async with _reached(login, connect_timeout):
            return True
    except Refused as error:
        # A line that pg_hba.conf lacks stays lacking, whatever becomes of the role.
        if isinstance(error.__cause__, _CREDENTIALS) and "pg_hba.conf" not in str(error.__cause__):
            return False
        raise


@asynccontextmanager
async def _reached(login: Login, connect_timeout: float) -> AsyncIterator[Connection]:
    try:
        async with faults_as_unavailable():
            with refusals_told():
                connection = await asyncpg.connect(
                    login.url,
                    timeout=connect_timeout,
                    command_timeout=connect_timeout,
                    server_settings={"application_name": "commonplace-migrate"},
                )
    except Refused as error:
        raise Refused(f"{login.variable}: {error.message}") from error.__cause__
    except Unavailable as error:
        raise Unavailable(f"{login.variable}: {error.message}") from error
    try:
        async with faults_as_unavailable():
            yield connection
    finally:
        await connection.close(timeout=connect_timeout)
