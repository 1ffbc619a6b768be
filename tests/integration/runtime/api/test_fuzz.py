"""
The whole API, called with what its own description allows and with what it does not.

Here a short round that is the same every time; `make fuzz` runs it for FUZZ_SECONDS, from FUZZ_SEED or by chance.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx2
import pytest
import structlog

from commonplace_runtime.entrypoints.http.app import OPERATIONS, create_app
from commonplace_runtime.entrypoints.http.openapi import document
from commonplace_runtime.ids import uuid7
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.conftest import Database
from tests.factories import Team, make_event, make_key, make_memory, make_project, make_session, make_team
from tests.fuzzing import Fuzz, Report, Seeds
from tests.integration.runtime.api.test_jobs import end
from tests.integration.runtime.conftest import CountingDoorbell

SECONDS: Final = float(os.environ["FUZZ_SECONDS"]) if os.environ.get("FUZZ_SECONDS") else None
SEED: Final = int(os.environ.get("FUZZ_SEED") or (0 if SECONDS is None else secrets.randbelow(2**32)))
EXAMPLES: Final = 20
STRIDE: Final = 5 if SECONDS is None else 1
LEAST_REACHED: Final = 0.9
JOB_STATES: Final = ("queued", "failed", "cancelled", "completed")


class Field:
    """One team whose things may be read and destroyed."""

    def __init__(self, pool: Pool, http: httpx2.AsyncClient, team: Team) -> None:
        self._pool = pool
        self._http = http
        self._team = team

    async def sow(self) -> Seeds:
        """Some of everything that has an id, all of it fresh."""
        pool, team = self._pool, self._team
        project_key = await make_key(pool, team.id, project_id=team.project_id, scopes=["*"], actor="agent:fuzz")
        team_key = await make_key(pool, team.id, scopes=["*"], actor="agent:fuzz")
        spare_key = await make_key(pool, team.id)
        spare_project = await make_project(pool, team.id, f"spare-{uuid7()}")
        session_id = await make_session(pool, team, content_session_id=str(uuid7()), platform="claude")
        events, jobs = [], []
        for state in JOB_STATES:
            body = make_event(payload={"text": str(uuid7())}, serverSessionId=session_id)
            answer = (await self._http.post("/v1/events", json=body, headers=project_key.headers)).json()
            events.append(answer["event"]["id"])
            jobs.append(answer["generationJob"]["id"])
            if state != "queued":
                await end(pool, jobs[-1], state)
        memories = [await make_memory(pool, team, f"The build needs cmake {n}.", event_id=events[0]) for n in range(3)]
        return Seeds(
            project_key=project_key.headers,
            team_key=team_key.headers,
            ids={
                "eventId": events,
                "jobId": jobs,
                "keyId": [spare_key.id],
                "memoryId": memories,
                "observationId": memories,
                "projectId": [team.project_id, "default", spare_project],
                "serverSessionId": [session_id],
                "sessionId": [session_id],
                "supersedes": memories,
                "teamId": [team.id, team.slug],
            },
        )


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """What goes wrong is shown, not every request."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def base_url(database: Database, doorbell: CountingDoorbell) -> AsyncIterator[str]:
    # No worker runs: whoever waits for a job would wait in vain.
    settings = Settings.model_validate({"database_url": database.runtime_url, "wait_timeout_seconds": 0.02})
    async with served(create_app(settings, doorbell=doorbell)) as url:
        yield url


@pytest.fixture
async def field(admin_pool: Pool, http: httpx2.AsyncClient) -> Field:
    return Field(admin_pool, http, await make_team(admin_pool))


async def fuzzed(base_url: str, field: Field, **options: Any) -> Report:
    loop = asyncio.get_running_loop()

    def sow() -> Seeds:
        return asyncio.run_coroutine_threadsafe(field.sow(), loop).result(30)

    fuzz = Fuzz(
        base_url=base_url, description=document(OPERATIONS), sow=sow, examples=EXAMPLES, stride=STRIDE, **options
    )
    return await asyncio.to_thread(fuzz.run)


async def test_every_operation_answers_as_its_description_says(base_url: str, field: Field) -> None:
    def say(line: str) -> None:
        print(line, flush=True)

    say(f"\nfuzz: FUZZ_SEED={SEED}")
    report = await fuzzed(base_url, field, seed=SEED, seconds=SECONDS, say=say)
    say(report.table())

    assert report.problems == [], "\n\n".join(report.problems)
    assert [tally.label for tally in report.tallies if tally.broken] == []
    assert report.share_reached >= LEAST_REACHED


async def test_the_seeds_have_an_id_for_every_path(field: Field) -> None:
    wanted = {
        each["name"]
        for item in document(OPERATIONS)["paths"].values()
        for operation in item.values()
        for each in operation.get("parameters", ())
        if each["in"] == "path"
    }
    assert wanted - (await field.sow()).ids.keys() == set()
