"""Create the group roles and the log-ins, and bring the schema up to date."""

from collections.abc import Sequence
from dataclasses import dataclass

from commonplace_runtime.store.migrate import Migration, SchemaNewer, apply_migrations, known_schema, migrations
from commonplace_runtime.store.pool import Pool, faults_as_unavailable
from commonplace_runtime.store.roles import Login, check_login, ensure_groups, ensure_logins

LOGIN_SECONDS = 5.0
"""How long one attempt of a log-in to connect may take."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was done now: migrations applied, log-ins made or changed; and the schema that the database has now."""

    applied: Sequence[Migration]
    changed_logins: Sequence[str]
    schema_version: int


async def migrate(pool: Pool, *, with_roles: bool) -> Sequence[Migration]:
    """`prepare_database` without log-ins; returns the migrations that ran."""
    return (await prepare_database(pool, with_roles=with_roles)).applied


async def prepare_database(
    pool: Pool,
    *,
    with_roles: bool,
    logins: Sequence[Login] = (),
    allow_newer: bool = False,
    login_seconds: float = LOGIN_SECONDS,
) -> Prepared:
    """
    Make what is missing: group roles (if `with_roles`), log-ins, migrations; then connect as every log-in to be sure.

    pool: of a role that may act as `commonplace_owner`, or become so with `with_roles`. allow_newer: where the schema
    is newer than this program only the log-ins are seen to. Safe to run twice, and from two places at once.
    Raises RolesMissing, SchemaNewer, Conflict, Unavailable or Refused. Roles and log-ins come first: where they cannot
    be made the schema stays as it was.
    """
    async with faults_as_unavailable(), pool.acquire() as connection:
        schema = await known_schema(connection)
        is_newer = schema > len(migrations())
        if is_newer and not allow_newer:
            raise SchemaNewer(schema)
        applied: Sequence[Migration] = ()
        if is_newer:
            changed = await ensure_logins(connection, logins, connect_timeout=login_seconds)
        else:
            await ensure_groups(connection, logins, may_create=with_roles)
            changed = await ensure_logins(connection, logins, connect_timeout=login_seconds)
            applied = await apply_migrations(connection)
            schema = await known_schema(connection)
    for login in logins:
        await check_login(login, schema=schema, connect_timeout=login_seconds)
    return Prepared(applied=applied, changed_logins=changed, schema_version=schema)
