"""`commonplace jobs` and `commonplace usage`: what became of the work, for an administrator at a terminal."""

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.domain.models import TeamId
from commonplace_runtime.domain.wire import full_job
from commonplace_runtime.entrypoints.terminal import Json, Team, as_admin, print_rows, printable, read_moment
from commonplace_runtime.services import jobs as service
from commonplace_runtime.services import operate_jobs, tenants
from commonplace_runtime.services.doorbell import NoDoorbell
from commonplace_runtime.services.usage import get_usage
from commonplace_runtime.store.job_views import Wanted
from commonplace_runtime.store.pool import Pool

jobs = cyclopts.App(name="jobs", help="Jobs: what waits, runs and has failed.")

Project = Annotated[str, Parameter(help="The project's id or name; needs --team.")]
Classification = Annotated[str, Parameter(help="Kind of the last error, such as throttled or configuration.")]
Since = Annotated[str, Parameter(help="Created at or after, for example 2027-01-31T00:00:00Z.")]
Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
_ERROR_LENGTH = 100
_SHOWN_FIRST = ("id", "status", "lastError", "holdReason", "heldUntil", "attempts", "maxAttempts", "nextAttemptAtEpoch")
_COLUMNS = ("id", "team", "project", "kind", "status", "attempts", "created", "lastError")


@jobs.command(name="list")
def list_jobs(
    *,
    team: Team | None = None,
    project: Project | None = None,
    status: Status | None = None,
    classification: Classification | None = None,
    since: Since | None = None,
    limit: int = 50,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    List jobs, newest first. The dead letters: --status failed.

    limit: at most so many, 1 to 1000.
    """
    if not 1 <= limit <= 1000:
        raise InvalidInput("--limit is 1 to 1000")
    wanted = _wanted(status, classification, since)
    found = as_admin(lambda pool: operate_jobs.list_jobs(pool, team=team, project=project, wanted=wanted, limit=limit))
    if json_:
        print(json.dumps([{"team": row["team"], "project": row["project"], **full_job(row["job"])} for row in found]))
        return
    print_rows([_line(row) for row in found], {name: name for name in _COLUMNS}, False)


@jobs.command(name="show")
def show_job(job: str, *, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """Show one job, with its last error in full and what holds it back."""

    async def look(pool: Pool) -> Any:
        return await service.get_job(pool, await operate_jobs.reach_of(pool, job), job)

    shown = full_job(as_admin(look))
    if json_:
        print(json.dumps(shown))
        return
    for name in (*_SHOWN_FIRST, *(name for name in shown if name not in _SHOWN_FIRST)):
        if (value := shown.get(name)) is not None:
            print(f"{name.removesuffix('Epoch') + ':':<17}{_value(name, value)}")


@jobs.command(name="retry")
def retry_jobs(
    *job: str,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Every job that the options mean.")] = False,
    team: Team | None = None,
    project: Project | None = None,
    status: Annotated[
        Literal["failed", "cancelled"] | None, Parameter(help="With --all: which. Default failed.")
    ] = None,
    classification: Classification | None = None,
    since: Since | None = None,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    Queue jobs again: those named, or with --all every failed one. A worker finds them at its next poll.

    job: ids of failed, cancelled or stranded jobs; one that is queued is let go at once.
    """
    options = (team, project, status, classification, since)
    if bool(job) == all_ or (job and any(option is not None for option in options)):
        raise InvalidInput("name jobs by their ids, or take --all with options: not both")
    if all_:
        wanted = _wanted(status or "failed", classification, since)
        done = as_admin(lambda pool: operate_jobs.retry_all(pool, team=team, project=project, wanted=wanted))
        print(json.dumps(done) if json_ else f"{done['retried']} queued again, {done['remaining']} remain")
        return

    async def retry(pool: Pool, one: str) -> Mapping[str, Any]:
        found = await service.retry_job(pool, NoDoorbell(), await operate_jobs.reach_of(pool, one), one)
        return {"id": one, "status": found.job["status"], "retriedCount": found.times}

    _one_by_one(job, retry, json_)


@jobs.command(name="cancel")
def cancel_jobs(job: str, *more: str, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """Cancel jobs by their ids. A call that is under way goes on, and its result is discarded."""

    async def cancel(pool: Pool, one: str) -> Mapping[str, Any]:
        found, _ = await service.cancel_job(pool, await operate_jobs.reach_of(pool, one), one)
        return {"id": one, "status": found["status"]}

    _one_by_one((job, *more), cancel, json_)


def usage(*, team: Team, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """Show what a team used this month, of what limits, and whether its generation is held back."""

    async def read(pool: Pool) -> Mapping[str, Any]:
        found = await tenants.find_team(pool, team)
        return await get_usage(pool, TeamId(str(found["id"])), None)

    told = as_admin(read)
    if json_:
        print(json.dumps(told))
        return
    generation = told["generation"]
    held = f" until {generation['until']}: {generation['reason']}" if generation["until"] else ""
    print(f"since {told['since']}: ${told['costUsd']:.2f}, generation is {generation['state']}{held}")
    rows = [{"what": kind, "used": used} for kind, used in sorted(told["usage"].items())]
    print_rows(rows, {"what": "what", "used": "used"}, False)
    for bound in ("hard", "soft"):
        for name, figure in told["limits"][bound].items():
            print(f"{bound} limit {name}: {figure}")
    for part, spent in told["breakdown"].items():
        print(f"\n{part}")
        columns = {"id": "id", "name": "name", "calls": "modelCalls", "tokens": "tokens", "costUsd": "costUsd"}
        print_rows(spent, columns, False)


def _wanted(status: str | None, classification: str | None, since: str | None) -> Wanted:
    moment = read_moment(since)
    return {"status": status, "classification": classification, "since": None if moment is None else moment.isoformat()}


def _line(row: Any) -> Mapping[str, Any]:
    job = row["job"]
    return {
        "id": job["id"],
        "team": row["team"],
        "project": row["project"],
        "kind": "summary" if job["sourceType"] == "session_summary" else "event",
        "status": job["status"],
        "attempts": f"{job['attempts']}/{job['maxAttempts']}",
        "created": _time(job["createdAtEpoch"]),
        "lastError": None if job["lastError"] is None else _cut(_error(job["lastError"])),
    }


def _error(error: Mapping[str, Any]) -> str:
    told = f"{error.get('classification', 'unknown')}: {error.get('reason', '')}"
    more = {name: value for name, value in error.items() if name not in ("classification", "reason")}
    return printable(f"{told} {json.dumps(more)}" if more else told)


def _cut(text: str) -> str:
    return text if len(text) <= _ERROR_LENGTH else text[: _ERROR_LENGTH - 1] + "…"


def _value(name: str, value: Any) -> str:
    if name.endswith("Epoch"):
        return _time(value)
    if name == "lastError":
        return _error(value)
    return printable(str(value))


def _time(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _one_by_one(
    job_ids: Sequence[str], act: Callable[[Pool, str], Coroutine[Any, Any, Mapping[str, Any]]], as_json: bool
) -> None:
    """Say what became of each job as soon as it is done; as JSON in one line, of those done when one cannot be."""
    done: list[Mapping[str, Any]] = []

    async def each(pool: Pool) -> None:
        for job_id in job_ids:
            done.append(await act(pool, job_id))
            if not as_json:
                print(f"{done[-1]['id']} {done[-1]['status']}", flush=True)

    try:
        as_admin(each)
    finally:
        if as_json and done:
            print(json.dumps(done))
