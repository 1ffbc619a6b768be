"""Erasures in the database: written down first, then gone through step by step under a lease."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import asyncpg

from commonplace_runtime.domain.erasure import Gone
from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import Json, Reach
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("erasures")
LEASE_SECONDS: Final = 30
"""For how long a process that goes silent keeps others from its erasure."""


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """The right to go on with an erasure until somebody takes it over; the token proves it."""

    id: str
    team_id: str
    project_id: str
    token: int


@dataclass(frozen=True, kw_only=True)
class Begun:
    """
    What is to go. erasure: None for a dry run, whose `counts` say what would.

    memories: the newest 100.
    """

    erasure: Erasure | None
    project_id: str
    counts: Mapping[str, int]
    memories: list[Gone]


async def begin(pool: Pool, reach: Reach, asked: Mapping[str, Json]) -> Begun | None:
    """
    Write down what is to go, or see what would; `asked` as above `begin_erasure_v1`, without "leaseSeconds".

    None for no such memory, session or project. Raises NotPermitted, ProjectMissing, Unavailable.
    """
    found = await fetch_value(pool, _SQL["begin"], *reach.arguments, {**asked, "leaseSeconds": LEASE_SECONDS})
    if found is None:
        return None
    erasure = None
    if found["erasureId"] is not None:
        erasure = Erasure(
            id=found["erasureId"],
            team_id=reach.team_id,
            project_id=found["projectId"],
            token=found["leaseToken"],
        )
    return Begun(
        erasure=erasure,
        project_id=found["projectId"],
        counts=found.get("counts", {}),
        memories=cast("list[Gone]", found["memories"]),
    )


async def step(pool: Pool, erasure: Erasure, *, rows: int) -> dict[str, Any]:
    """
    Erase about `rows` rows more: `{"outcome": going|done|lease_lost, "phase", "counts", "seconds"}`.

    Raises Unavailable; `was_busy` tells whether somebody else held a row.
    """
    answer = await fetch_value(pool, _SQL["step"], erasure.team_id, erasure.id, erasure.token, rows, LEASE_SECONDS)
    return cast("dict[str, Any]", answer)


def was_busy(error: Unavailable) -> bool:
    """Whether a step gave way to another transaction, and may be tried again at once."""
    return isinstance(error.__cause__, asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError)


async def resume(pool: Pool) -> Erasure | None:
    """Take over an erasure that nobody goes on with, of any team. Raises Unavailable."""
    found = await fetch_value(pool, _SQL["resume"], LEASE_SECONDS)
    if found is None:
        return None
    return Erasure(
        id=found["erasureId"], team_id=found["teamId"], project_id=found["projectId"], token=found["leaseToken"]
    )
