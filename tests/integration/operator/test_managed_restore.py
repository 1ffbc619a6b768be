"""A database that was put back to an earlier state: what `docs/howto/backup.md` says about its migration."""

import asyncpg

from tests.integration.operator.kubelet import ManagedWorld


async def test_a_database_that_forgot_its_schema_is_migrated_again_once_the_job_is_deleted(
    managed_world: ManagedWorld,
) -> None:
    world = managed_world
    await world.installed()
    [done] = world.names("Job")
    connection = await asyncpg.connect(world.owner_uri)
    try:
        await connection.execute("SET ROLE commonplace_owner")
        await connection.execute("DROP SCHEMA commonplace CASCADE")
    finally:
        await connection.close()

    world.delete("Job", done)
    report = await world.run_migration()

    assert report.outcome == "migrated", report
    await world.settled()
    world.create("MemoryTeam", "team", {"runtimeRef": {"name": "main"}})
    await world.ready("MemoryTeam", "team")
