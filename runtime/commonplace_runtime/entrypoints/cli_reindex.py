"""`commonplace reindex`: have search indexes built anew, and watch it."""

import asyncio
import json
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Annotated, Final

from cyclopts import Parameter

from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.domain.reindex import IndexOfTeam
from commonplace_runtime.entrypoints.terminal import Json, Team, as_admin, print_rows
from commonplace_runtime.services import reindex as service
from commonplace_runtime.store.pool import Pool

_TICK_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 60.0
"""How long nothing may move before watching is given up."""
_COLUMNS: Final = ("team", "project", "status", "memories", "indexed")


def reindex(
    *,
    team: Team | None = None,
    project: Annotated[
        str | None, Parameter(help="The project's id or name; left out: all of the team's; needs --team.")
    ] = None,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Every project of every team.")] = False,
    wait: Annotated[
        bool | None, Parameter(help="Stay until it is done. Default on a terminal.", negative="--no-wait")
    ] = None,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    Build search indexes anew. A worker or an api does it; searches find everything meanwhile, more slowly.

    Ctrl-C ends the waiting and nothing else. Exits with 1 when it waits and nothing moves for a minute.
    """
    if (team is None) != all_ or (all_ and project is not None):
        raise InvalidInput("name a team with --team, and perhaps one --project of it, or take --all")
    stays = sys.stderr.isatty() and not json_ if wait is None else wait
    told, is_done = as_admin(lambda pool: _reindex(pool, team, project, stays))
    if json_:
        print(json.dumps(told))
    else:
        print_rows(told, {name: name for name in _COLUMNS}, False)
    if not is_done:
        print(
            f"nothing has moved for {_PATIENCE_SECONDS:.0f} s: it stays queued; is a worker or an api running?",
            file=sys.stderr,
        )
        raise SystemExit(1)


async def _reindex(
    pool: Pool, team: str | None, project: str | None, stays: bool
) -> tuple[Sequence[IndexOfTeam], bool]:
    asked = await service.request_rebuilds(pool, team=team, project=project)
    return await _watched(pool, asked) if stays else (asked, True)


async def _watched(pool: Pool, asked: Sequence[IndexOfTeam]) -> tuple[Sequence[IndexOfTeam], bool]:
    """The last look, and whether all was done by then."""
    told, moved, last = asked, monotonic(), -1
    is_terminal = sys.stderr.isatty()
    try:
        while True:
            indexed, total = sum(one["indexed"] for one in told), sum(one["memories"] for one in told)
            if indexed != last:
                last, moved = indexed, monotonic()
            if is_terminal:
                print(f"\rindexed {indexed:,} of {total:,}", end="", file=sys.stderr, flush=True)
            is_done = all(one["status"] == "idle" for one in told)
            if is_done or monotonic() - moved >= _PATIENCE_SECONDS:
                break
            await asyncio.sleep(_TICK_SECONDS)
            told = await service.look_again(pool, told)
    except asyncio.CancelledError:
        print("\ninterrupted: it stays queued, and `commonplace doctor` knows how far it is", file=sys.stderr)
        raise
    if is_terminal:
        print(file=sys.stderr)
    return told, is_done
