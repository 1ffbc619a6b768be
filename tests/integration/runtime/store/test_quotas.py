from uuid import UUID, uuid4

from commonplace_runtime.store.pool import Pool
from tests.factories import make_team


async def test_a_quota_that_moves_frees_the_team_it_leaves(admin_pool: Pool, operator_pool: Pool) -> None:
    await admin_pool.execute("INSERT INTO commonplace.installations (installation, term) VALUES ('here', 1)")
    first, second = [await make_team(admin_pool, installation="here", owner_uid=uid) for uid in ("a", "b")]
    for generation, team in enumerate((first, second), start=1):
        await operator_pool.fetchval(
            "SELECT commonplace.put_quota_v1('here', 1, $1, 'quota', $2, $3, 'q', $4, 'Enforce')",
            generation,
            uuid4(),
            UUID(team.id),
            {"requestsPerMinute": 10},
        )
    rows = await admin_pool.fetch("SELECT team_id::text, requests_per_minute FROM commonplace.team_limits")
    assert {row["team_id"]: row["requests_per_minute"] for row in rows} == {first.id: None, second.id: 10}
