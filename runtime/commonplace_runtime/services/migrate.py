"""Create the group roles and bring the schema up to date."""

from collections.abc import Sequence

from commonplace_runtime.domain.errors import Conflict
from commonplace_runtime.store.migrate import Migration, apply_migrations, create_roles, missing_roles
from commonplace_runtime.store.pool import Pool, faults_as_unavailable


async def migrate(pool: Pool, *, with_roles: bool) -> Sequence[Migration]:
    """
    Run what has not run yet and return it.

    pool: of a role that may act as `commonplace_owner`; with `with_roles` one that has CREATEROLE.
    Raises Conflict when roles are missing or the database and this program do not fit, Unavailable when it is away.
    """
    async with faults_as_unavailable(), pool.acquire() as connection:
        if with_roles:
            await create_roles(connection)
        elif missing := await missing_roles(connection):
            raise Conflict(
                f"the roles {', '.join(missing)} do not exist: run `commonplace migrate --create-roles` once "
                "as a role with CREATEROLE, or run store/roles.sql by hand"
            )
        return await apply_migrations(connection)
