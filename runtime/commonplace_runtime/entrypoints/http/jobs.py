"""Jobs for people: /v1/jobs, /v1/teams/:id/jobs, /v1/projects/:id/jobs, and what may be done with one."""

import re
from typing import Annotated, Final, Literal, NotRequired, cast

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.errors import NotFound, NotPermitted
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.moments import read_date
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue
from commonplace_runtime.domain.wire import FullJob, JobPage, ListedJob, full_job, listed_job
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation, ProjectName, Text
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, request_id_of, state_of
from commonplace_runtime.services import jobs
from commonplace_runtime.services.jobs import MAX_OFFSET, MAX_RETRIES, JobQuery
from commonplace_runtime.store.job_views import Wanted

JobReader = Annotated[Principal, Depends(needs(Access.JOBS))]
JobOperator = Annotated[Principal, Depends(needs(Access.WRITE))]

_STATUSES: Final = ("queued", "processing", "completed", "failed", "cancelled")
_SOURCE_TYPES: Final = ("agent_event", "session_summary", "observation_reindex")
_LIMITS: Final = (50, 200)
_NAME_CHARACTERS: Final = 200
_WHOLE_NUMBER: Final = re.compile(r"\s*([+-]?[0-9]{1,15})")


class JobPageQuery(TypedDict):
    """Which jobs, and how many."""

    status: NotRequired[
        Annotated[str, Field(description="queued, processing, completed, failed or cancelled; others are no filter.")]
    ]
    limit: NotRequired[
        Annotated[int, Field(ge=1, le=200, description="Default 50. More or less is read as the nearest that may be.")]
    ]
    offset: NotRequired[Annotated[int, Field(ge=0, le=MAX_OFFSET, description="Default 0.")]]


class JobsQuery(JobPageQuery):
    """The same with more filters."""

    source_type: NotRequired[
        Annotated[str, Field(description="agent_event, session_summary or observation_reindex; others are no filter.")]
    ]
    since: NotRequired[
        Annotated[str, Field(description="Made at that moment or later: ISO 8601, or what JavaScript's `Date` reads.")]
    ]
    classification: NotRequired[Annotated[str, Field(description="Of the last error.")]]
    projectId: NotRequired[Annotated[str, Field(description="Id or name.")]]
    include: NotRequired[Annotated[str, Field(description="`payload`: only with the scope `memories:admin`.")]]


class RetriesWanted(TypedDict):
    """Which jobs are to run again."""

    status: NotRequired[Annotated[Literal["failed", "cancelled"] | None, Field(description="Default `failed`.")]]
    projectId: NotRequired[ProjectName | None]
    classification: NotRequired[Annotated[Text | None, Field(description="Of the last error.")]]
    since: NotRequired[
        Annotated[
            Text | None,
            Field(
                description="Made at that moment or later.",
                json_schema_extra={"format": "date-time"},
                examples=["2026-11-01T00:00:00Z"],
            ),
        ]
    ]
    limit: NotRequired[Annotated[int | None, Field(ge=1, le=MAX_RETRIES, description="Default 100.")]]


class JobAnswer(TypedDict):
    """One job."""

    generationJob: FullJob


class RetriedJob(JobAnswer):
    """A job that waits again or still; `retriedCount`: how often somebody asked for it."""

    retriedCount: int
    alreadyQueued: bool
    requestId: str


class CancelledJob(JobAnswer):
    """A job that will not be worked on."""

    alreadyCancelled: bool
    requestId: str


class RetriedJobs(TypedDict):
    """How many were put back, and how many that match are left."""

    retried: int
    remaining: int
    requestId: str


class JobList(TypedDict):
    """Jobs, newest first; `total` is exact up to 10,000."""

    jobs: list[ListedJob]
    total: int
    limit: int
    offset: int


class JobsAnswer(JobList):
    """The same with the request's id."""

    requestId: str


async def get_job(request: Request, principal: JobReader, job_id: str) -> Response:
    """One job; 404 for another team's and for a sibling project's."""
    job = await jobs.get_job(state_of(request).pool, reach_of(request, principal), job_id)
    return json_response({"generationJob": full_job(job)})


async def get_jobs(request: Request, principal: JobReader) -> Response:
    """The jobs that the key reaches, newest first; none of a project that it does not reach."""
    asked = request.query_params
    with_payload = "payload" in [part.strip() for part in asked.get("include", "").split(",")]
    if with_payload and not Access.PAYLOADS.is_open_to(principal.scopes):
        raise NotPermitted("`include=payload` requires admin scope")
    wanted: Wanted = {
        "status": _one_of(asked.get("status"), _STATUSES),
        "sourceType": _one_of(asked.get("source_type"), _SOURCE_TYPES),
        "since": _moment(asked.get("since")),
        "classification": _text(asked.get("classification")),
    }
    query = _query(request, "jobs_list", project=_text(asked.get("projectId")), wanted=wanted, payload=with_payload)
    try:
        page = await jobs.list_jobs(state_of(request).pool, reach_of(request, principal), query)
    except NotFound:  # a filter that nothing matches, unlike a path that leads nowhere
        page = {"jobs": [], "total": 0}
    return _listed(page, query, {"requestId": request_id_of(request)})


async def get_team_jobs(request: Request, principal: JobReader, team_id: str) -> Response:
    """The same by the team's id or slug; 404 for another team."""
    if team_id.lower() not in (principal.team_id, principal.team_slug):
        raise NotFound("Team not found")
    status = {"status": _one_of(request.query_params.get("status"), _STATUSES)}
    query = _query(request, "team_jobs", project=None, wanted=status)
    return _listed(await jobs.list_jobs(state_of(request).pool, reach_of(request, principal), query), query, {})


async def get_project_jobs(request: Request, principal: JobReader, project_id: str) -> Response:
    """The same of one project, by id or name; 404 where the key does not reach it."""
    status = {"status": _one_of(request.query_params.get("status"), _STATUSES)}
    query = _query(request, "project_jobs", project=project_id, wanted=status)
    return _listed(await jobs.list_jobs(state_of(request).pool, reach_of(request, principal), query), query, {})


async def post_retry(request: Request, principal: JobOperator, job_id: str) -> Response:
    """Queue a job again that failed, was cancelled or lost its worker."""
    state = state_of(request)
    done = await jobs.retry_job(state.pool, state.doorbell, reach_of(request, principal), job_id)
    return json_response(
        {
            "generationJob": full_job(done.job),
            "retriedCount": done.times,
            "alreadyQueued": done.was_queued,
            "requestId": request_id_of(request),
        }
    )


async def post_retries(request: Request, principal: JobOperator) -> Response:
    """Queue many failed or cancelled jobs again, all in one transaction."""
    issues: list[Issue] = []
    body = await read_json(request, expected="object")
    fields = Fields(body.value, issues)
    since = fields.text("since")
    wanted: Wanted = {
        "status": fields.choice("status", ("failed", "cancelled"), "failed"),
        "project": _text(fields.text("projectId")),
        "classification": _text(fields.text("classification")),
        "since": _moment(since),
    }
    limit = fields.integer("limit", minimum=1, maximum=MAX_RETRIES) or 100
    if since is not None and wanted["since"] is None:
        issues.append(
            {"code": "invalid_format", "format": "datetime", "path": ["since"], "message": "Invalid ISO datetime"}
        )
    if issues:
        raise InvalidFields(issues)
    state = state_of(request)
    done = await jobs.retry_jobs(state.pool, state.doorbell, reach_of(request, principal), wanted, limit=limit)
    return json_response({**done, "requestId": request_id_of(request)})


async def post_cancel(request: Request, principal: JobOperator, job_id: str) -> Response:
    """Cancel a job. A call that is under way goes on, and its result is discarded."""
    job, was_cancelled = await jobs.cancel_job(state_of(request).pool, reach_of(request, principal), job_id)
    return json_response(
        {"generationJob": full_job(job), "alreadyCancelled": was_cancelled, "requestId": request_id_of(request)}
    )


def _query(request: Request, mode: str, *, project: str | None, wanted: Wanted, payload: bool = False) -> JobQuery:
    usual, most = _LIMITS
    asked = request.query_params
    return JobQuery(
        mode=mode,
        project=project,
        wanted=wanted,
        limit=min(max(_number(asked.get("limit"), usual), 1), most),
        offset=min(max(_number(asked.get("offset"), 0), 0), MAX_OFFSET),
        with_payload=payload,
    )


def _listed(page: JobPage, query: JobQuery, more: dict[str, str]) -> Response:
    listed = [listed_job(job) for job in page["jobs"]]
    return json_response({"jobs": listed, "total": page["total"], "limit": query.limit, "offset": query.offset, **more})


def _number(text: str | None, usual: int) -> int:
    """As JavaScript's parseInt reads it; what is no number is `usual`."""
    found = _WHOLE_NUMBER.match(text or "")
    return int(found[1]) if found else usual


def _one_of(text: str | None, known: tuple[str, ...]) -> str | None:
    return text if text in known else None


def _text(text: str | None) -> str | None:
    """
    A name as Postgres can compare and audit may keep it: cleaned like an event.

    One that is longer than any name becomes one that nothing has.
    """
    if not text:
        return None
    return cast("str", redact(text).value) if len(text) <= _NAME_CHARACTERS else "\ufffd"


def _moment(text: str | None) -> str | None:
    """A moment as `read_date` knows it, for Postgres; None for anything else."""
    moment = read_date(text or "")
    return None if moment is None else moment.isoformat()


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/jobs",
        handler=get_jobs,
        id="listJobs",
        tag="Jobs",
        query=JobsQuery,
        answer=JobsAnswer,
    ),
    Operation(
        method="POST",
        path="/v1/jobs/retry",
        handler=post_retries,
        id="retryJobs",
        tag="Jobs",
        body=RetriesWanted,
        answer=RetriedJobs,
        fails=(404,),
        example={"status": "failed", "limit": 100},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}",
        handler=get_job,
        id="getJob",
        tag="Jobs",
        answer=JobAnswer,
        fails=(404,),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/retry",
        handler=post_retry,
        id="retryJob",
        tag="Jobs",
        answer=RetriedJob,
        fails=(404, 409),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/cancel",
        handler=post_cancel,
        id="cancelJob",
        tag="Jobs",
        answer=CancelledJob,
        fails=(404, 409),
    ),
    Operation(
        method="GET",
        path="/v1/teams/{team_id}/jobs",
        handler=get_team_jobs,
        id="listTeamJobs",
        tag="Jobs",
        query=JobPageQuery,
        answer=JobList,
        fails=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/projects/{project_id}/jobs",
        handler=get_project_jobs,
        id="listProjectJobs",
        tag="Jobs",
        query=JobPageQuery,
        answer=JobList,
        fails=(404,),
        path_examples={"project_id": "default"},
    ),
)
