"""Projects: /v1/projects."""

from typing import Annotated, Final, NotRequired

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.projects import MAX_NAME, MAX_PATH, ProjectPage, ProjectRow, read_project
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.queries import read_count
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.services import projects

Reader = Annotated[Principal, Depends(needs(Access.READ))]
Writer = Annotated[Principal, Depends(needs(Access.WRITE, Spending.TOKENS))]


async def get_projects(request: Request, principal: Reader) -> Response:
    """The projects that the key reaches, by name."""
    limit = read_count(request, "limit", default=projects.MOST, most=projects.MOST)
    cursor = request.query_params.get("cursor")
    after = projects.read_place(cursor) if cursor else None
    reach = reach_of(request, principal)
    return json_response(await projects.list_projects(state_of(request).pool, reach, after=after, limit=limit))


async def post_project(request: Request, principal: Writer) -> Response:
    """Make a project. Keys that are bound to one cannot."""
    body = await read_json(request, expected="object")
    project = read_project(body.value)
    made = await projects.create_project(state_of(request).pool, reach_of(request, principal), project)
    return json_response({"project": made}, 201)


async def get_project(request: Request, principal: Reader, project_id: str) -> Response:
    """One project, by id or name."""
    found = await projects.get_project(state_of(request).pool, reach_of(request, principal), project_id)
    return json_response({"project": found})


class ProjectBody(TypedDict):
    """A project to be made."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="Unique in the team.")]
    slug: NotRequired[Annotated[str | None, Field(max_length=MAX_NAME)]]
    rootPath: NotRequired[
        Annotated[str | None, Field(max_length=MAX_PATH, description="Where the repository is checked out.")]
    ]
    metadata: NotRequired[Annotated[dict[str, Json] | None, Field(description="At most 16 KiB of JSON.")]]


class ProjectAnswer(TypedDict):
    """One project."""

    project: ProjectRow


class ProjectsQuery(TypedDict, total=False):
    """Which part of the list."""

    limit: Annotated[int, Field(ge=1, le=projects.MOST, description=f"Default {projects.MOST}.")]
    cursor: Annotated[str, Field(description="`nextCursor` of the page before.")]


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/projects",
        handler=get_projects,
        id="listProjects",
        tag="Projects",
        query=ProjectsQuery,
        answer=ProjectPage,
    ),
    Operation(
        method="POST",
        path="/v1/projects",
        handler=post_project,
        id="createProject",
        tag="Projects",
        body=ProjectBody,
        answer=ProjectAnswer,
        status=201,
        fails=(409,),
        example={"name": "checkout-service", "slug": "checkout", "rootPath": "/src/checkout"},
    ),
    Operation(
        method="GET",
        path="/v1/projects/{project_id}",
        handler=get_project,
        id="getProject",
        tag="Projects",
        answer=ProjectAnswer,
        fails=(404,),
        path_examples={"project_id": "default"},
    ),
)
