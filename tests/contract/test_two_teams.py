"""Two teams never see anything of each other, whatever they ask in whatever order."""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from commonplace_runtime.store.pool import Pool
from tests.contract import two_teams
from tests.contract.support import Api
from tests.contract.two_teams import EXPECTED, IS_USUAL, STEPS, TEAMS, WALKS, Holder, Stage, TwoTeams
from tests.factories import make_key, make_project, make_team
from tests.integration.runtime.indexes import State, bring_to

READ = ("memories:read", "jobs:read")
MOST_ROUNDS = 6


async def make_stage(url: str, pool: Pool, keep: Callable[[bool], None]) -> Stage:
    holders: dict[tuple[Any, str], Holder] = {}
    ids: dict[Any, dict[str, list[str]]] = {}
    secrets: dict[Any, list[str]] = {}
    for name in TEAMS:
        team = await make_team(pool)
        sibling = await make_project(pool, team.id, "sibling")
        ids[name] = {"team": [team.id], "project": [team.project_id, sibling], "key": []}
        secrets[name] = [team.slug]
        for holder, actor, project, scopes in (
            ("ann", "human:ann", None, ("memories:read", "memories:write")),
            ("bob", "human:bob", None, ("memories:read", "memories:write")),
            ("bound", "human:ann", team.project_id, ("memories:read", "memories:write")),
            ("sibling", "human:bob", sibling, ("memories:read", "memories:write")),
            ("reader", "human:bob", None, READ),
            ("bound_reader", "human:ann", team.project_id, READ),
            ("admin", "human:ops", None, ("*",)),
        ):
            key = await make_key(pool, team.id, project_id=project, scopes=scopes, actor=actor)
            holders[name, holder] = Holder(team=name, actor=actor, token=key.token)
            ids[name]["key"].append(key.id)
    return Stage(url=url, holders=holders, ids=ids, secrets=secrets, keep=keep)


async def test_two_teams_never_see_anything_of_each_other(api: Api, runtime_pool: Pool) -> None:
    """
    The same walks each time, and further ones until each operation was reached; TWO_TEAMS_WALKS and TWO_TEAMS_STEPS ask
    for other ones, and for more.
    """
    two_teams.reached.clear()
    missed = EXPECTED
    for place in range(MOST_ROUNDS if IS_USUAL else 1):
        await _walk(api, runtime_pool, place if IS_USUAL else None)
        missed = EXPECTED - set(two_teams.reached)
        if not missed:
            break
    assert not missed or not IS_USUAL, f"the walks did not get to {', '.join(sorted(missed))}"


async def _walk(api: Api, runtime_pool: Pool, number: int | None) -> None:
    """WALKS walks: those of `number`, or (None) any."""
    loop = asyncio.get_running_loop()

    def keep(anew: bool) -> None:
        state: State = "being built" if anew else "merged"
        asyncio.run_coroutine_threadsafe(bring_to(state, api.pool, runtime_pool), loop).result(60)

    class Walk(TwoTeams):
        @staticmethod
        def stage() -> Stage:
            return asyncio.run_coroutine_threadsafe(make_stage(api.url, api.pool, keep), loop).result(30)

    await asyncio.to_thread(
        run_state_machine_as_test,
        Walk if number is None else seed(number)(Walk),
        settings=settings(
            max_examples=WALKS,
            stateful_step_count=STEPS,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
