"""
What claude-mem's hooks and tools read from its local worker: context injection, search, timeline, by file, batch.

Their requests carry no key; a proxy on their machine adds one. They know repositories by local name and memories by
number. Numbers in a query are read as JavaScript would and clamped: what asks is a hook that shows nothing of a 400.
"""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NotRequired, cast

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.domain.events import LATEST_EPOCH_MS
from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.moments import read_date
from commonplace_runtime.domain.platforms import normalise_platform
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue, type_name, wrong_type
from commonplace_runtime.domain.worker_reads import SUMMARY, Order, WorkerSearch, batch_row, by_file_row
from commonplace_runtime.domain.worker_texts import (
    CONTEXT_CHARACTERS,
    FULL_CONTEXT_CHARACTERS,
    context_text,
    search_text,
    timeline_text,
)
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.services import worker_reads

Reader = Annotated[Principal, Depends(needs(Access.READ))]

MAX_IDS: Final = 500
_WHOLE_NUMBER: Final = re.compile(r"\s*([+-]?[0-9]{1,15})")
_NO_NAME: Final = "\ufffd"

Name = Annotated[str, Field(description="Local name of a repository: its folder, or parent/folder of a worktree.")]
Names = Annotated[str, Field(description="Local names of repositories, separated by commas.")]
Platform = Annotated[str, Field(description="Only what came from this platform, for example `claude`.")]


class ContextQuery(TypedDict):
    """Which repositories, and for whose eyes."""

    projects: NotRequired[Names]
    project: NotRequired[Name]
    platformSource: NotRequired[Platform]
    colors: NotRequired[Annotated[Literal["true", "false"], Field(description="With colours for a terminal.")]]
    full: NotRequired[Annotated[Literal["true", "false"], Field(description="Four times as much.")]]


class ByFileQuery(TypedDict):
    """One file, by one or more of its paths."""

    path: Annotated[list[str], Field(description="Absolute or relative to the repository; given once for each.")]
    projects: NotRequired[Names]
    limit: NotRequired[Annotated[int, Field(ge=1, le=100, description="40 where it is left out.")]]


class SearchQuery(TypedDict):
    """What to look for; without a query the newest."""

    query: NotRequired[str]
    type: NotRequired[Literal["observations", "sessions", "prompts"]]
    obs_type: NotRequired[Annotated[str, Field(description="Kinds of memories, separated by commas.")]]
    project: NotRequired[Name]
    platformSource: NotRequired[Platform]
    dateStart: NotRequired[Annotated[str, Field(description="A date, or epoch milliseconds.")]]
    dateEnd: NotRequired[Annotated[str, Field(description="A date, whose whole day is meant, or epoch milliseconds.")]]
    orderBy: NotRequired[Literal["relevance", "date_desc", "date_asc"]]
    limit: NotRequired[Annotated[int, Field(ge=1, le=100, description="20 where it is left out.")]]
    offset: NotRequired[Annotated[int, Field(ge=0)]]


class TimelineQuery(TypedDict):
    """Which memory, and how many around it."""

    anchor: NotRequired[Annotated[str, Field(description="Number or id of a memory.")]]
    query: NotRequired[Annotated[str, Field(description="Finds the memory where no anchor is given.")]]
    depth_before: NotRequired[Annotated[int, Field(ge=0, le=50, description="3 where it is left out.")]]
    depth_after: NotRequired[Annotated[int, Field(ge=0, le=50, description="3 where it is left out.")]]
    project: NotRequired[Name]
    platformSource: NotRequired[Platform]


class BatchBody(TypedDict):
    """Which memories."""

    ids: Annotated[list[int | str], Field(max_length=MAX_IDS, description="Numbers or ids.")]
    orderBy: NotRequired[Literal["date_desc", "date_asc"]]
    limit: NotRequired[Annotated[int, Field(ge=1)]]
    project: NotRequired[Name]


class FileRow(TypedDict):
    """A memory about a file. Lists are JSON arrays in a string."""

    id: Annotated[int, Field(description="The memory's number.")]
    uuid: str
    memory_session_id: str | None
    project: str
    type: str
    title: str
    created_at: str
    created_at_epoch: int
    files_read: str
    files_modified: str


class FileAnswer(TypedDict):
    """The newest memories about a file, newest first."""

    observations: list[FileRow]
    count: int


class BatchRow(FileRow):
    """A whole memory."""

    subtitle: str | None
    narrative: str | None
    text: str
    facts: str
    concepts: str


class TextPart(TypedDict):
    """A text for a model."""

    type: Literal["text"]
    text: str


class ToolAnswer(TypedDict):
    """What an MCP tool answers."""

    content: list[TextPart]
    isError: NotRequired[bool]


async def get_context(request: Request, principal: Reader) -> Response:
    """What a session begins with, as text; empty where nothing is known under these names."""
    state, names = state_of(request), _names(request)
    is_full = request.query_params.get("full") == "true"
    found = await worker_reads.session_context(
        state.pool, reach_of(request, principal), names, _platform(request), limit=200 if is_full else 50
    )
    text = context_text(
        found,
        names,
        state.now(),
        in_colours=request.query_params.get("colors") == "true",
        characters=FULL_CONTEXT_CHARACTERS if is_full else CONTEXT_CHARACTERS,
    )
    return PlainTextResponse(text)


async def get_by_file(request: Request, principal: Reader) -> Response:
    """The newest memories about a file, by any of its paths."""
    paths = [path for path in request.query_params.getlist("path") if path]
    if not paths:
        raise InvalidInput("path query parameter is required")
    rows = await worker_reads.memories_of_file(
        state_of(request).pool,
        reach_of(request, principal),
        paths,
        _names(request),
        limit=_number(request, "limit", usual=40, least=1, most=100),
    )
    return json_response({"observations": [by_file_row(row) for row in rows], "count": len(rows)})


async def get_search(request: Request, principal: Reader) -> Response:
    """Memories that a query finds, or the newest, one line each."""
    asked = request.query_params
    wanted = _search(request)
    found = await worker_reads.search(state_of(request).pool, reach_of(request, principal), wanted)
    return _tool(search_text(found, asked.get("query"), wanted.offset))


async def get_timeline(request: Request, principal: Reader) -> Response:
    """What was noted before and after one memory, oldest first, one line each."""
    asked = request.query_params
    anchor, query = asked.get("anchor", "").strip().lstrip("#"), asked.get("query", "").strip()
    if not anchor and not query:
        return _tool("Name an anchor (the id of a memory) or a query that finds one.", is_error=True)
    found = await worker_reads.timeline(
        state_of(request).pool,
        reach_of(request, principal),
        asked.get("project"),
        anchor=anchor or None,
        query=query,
        platform=_platform(request),
        before=_number(request, "depth_before", usual=3, least=0, most=50),
        after=_number(request, "depth_after", usual=3, least=0, most=50),
    )
    return _tool(timeline_text(found))


async def post_batch(request: Request, principal: Reader) -> Response:
    """Whole memories by number or id; what the key does not reach is left out."""
    body = await read_json(request, expected="object")
    issues: list[Issue] = []
    fields = Fields(body.value, issues)
    ids = _ids(fields.value("ids"), issues)
    order = fields.choice("orderBy", ("date_desc", "date_asc"), "date_desc")
    limit = fields.integer("limit", minimum=1, maximum=2**53) or MAX_IDS
    project = fields.text("project")
    if issues:
        raise InvalidFields(issues)
    rows = await worker_reads.whole_memories(
        state_of(request).pool,
        reach_of(request, principal),
        ids,
        project,
        oldest_first=order == "date_asc",
        limit=min(limit, MAX_IDS),
    )
    return json_response([batch_row(row) for row in rows])


def _search(request: Request) -> WorkerSearch:
    """Raises InvalidFields for a date that is none."""
    asked, issues = request.query_params, cast("list[Issue]", [])
    kinds: list[str] | None = [kind.strip() for kind in asked.get("obs_type", "").split(",") if kind.strip()] or None
    no_kinds: list[str] = []
    match asked.get("type"):
        case "observations":
            no_kinds = [SUMMARY]
        case "sessions":
            kinds = [SUMMARY]
        case "prompts":
            kinds = []  # prompts are part of sessions, and no memories
    order = asked.get("orderBy")
    wanted = WorkerSearch(
        names=_names(request),
        query=asked.get("query", "").strip() or None,
        platform=_platform(request),
        kinds=kinds,
        no_kinds=no_kinds,
        since=_moment(request, "dateStart", issues),
        until=_moment(request, "dateEnd", issues),
        order=cast("Order", order) if order in ("date_desc", "date_asc") else "relevance",
        limit=_number(request, "limit", usual=20, least=1, most=100),
        offset=_number(request, "offset", usual=0, least=0, most=1_000_000),
    )
    if issues:
        raise InvalidFields(issues)
    return wanted


def _names(request: Request) -> list[str]:
    """The repositories that are meant, each once. A list of nothing but commas means one that does not exist."""
    asked = request.query_params
    given = asked.getlist("projects") or asked.getlist("project")
    names = [name.strip() for text in given for name in text.split(",")]
    known = list(dict.fromkeys(name for name in names if name))
    return known or ([_NO_NAME] if any(given) else [])


def _platform(request: Request) -> str | None:
    return normalise_platform(request.query_params.get("platformSource") or None)


def _number(request: Request, name: str, *, usual: int, least: int, most: int) -> int:
    found = _WHOLE_NUMBER.match(request.query_params.get(name, ""))
    return min(max(int(found[1]) if found else usual, least), most)


def _moment(request: Request, name: str, issues: list[Issue]) -> datetime | None:
    text = request.query_params.get(name, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) > 4:
        epoch_ms = int(text[:19])
        moment = datetime.fromtimestamp(epoch_ms / 1000, UTC) if epoch_ms <= LATEST_EPOCH_MS else None
    else:
        moment = read_date(text)
        if moment is not None and name == "dateEnd" and re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
    if moment is None:
        issues.append({"code": "invalid_format", "format": "datetime", "path": [name], "message": "Invalid date"})
    return moment


def _ids(given: Json, issues: list[Issue]) -> list[int | str]:
    """Numbers and ids; also as JSON or with commas in one string, as the client's tools may send them."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = None if not isinstance(given, str) else cast("Json", [part.strip() for part in given.split(",")])
        if isinstance(given, int | str) and not isinstance(given, bool):
            given = [given]
    if not isinstance(given, list):
        issues.append(wrong_type(("ids",), "array", "undefined" if given is None else type_name(given)))
        return []
    if len(given) > MAX_IDS:
        message = f"Too big: expected array to have <={MAX_IDS} items"
        issues.append({"origin": "array", "code": "too_big", "maximum": MAX_IDS, "path": ["ids"], "message": message})
        return []
    ids: list[int | str] = []
    for place, each in enumerate(given):
        if isinstance(each, str | int) and not isinstance(each, bool):
            ids.append(each)
        elif isinstance(each, float) and each.is_integer():  # not so NaN and Infinity, which JSON in a string may spell
            ids.append(int(each))
        else:
            issues.append(wrong_type(("ids", place), "number", type_name(each)))
    return ids


def _tool(text: str, *, is_error: bool = False) -> Response:
    body: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    return json_response({**body, "isError": True} if is_error else body)


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/context/inject",
        handler=get_context,
        id="getSessionContext",
        tag="Compat",
        query=ContextQuery,
        media="text/plain",
    ),
    Operation(
        method="GET",
        path="/api/observations/by-file",
        handler=get_by_file,
        id="listMemoriesOfFile",
        tag="Compat",
        query=ByFileQuery,
        answer=FileAnswer,
        fails=(400,),
    ),
    Operation(
        method="POST",
        path="/api/observations/batch",
        handler=post_batch,
        id="getMemoriesByNumber",
        tag="Compat",
        body=BatchBody,
        answer=list[BatchRow],
        example={"ids": [1, 2]},
    ),
    Operation(
        method="GET",
        path="/api/search",
        handler=get_search,
        id="searchAsText",
        tag="Compat",
        query=SearchQuery,
        answer=ToolAnswer,
        fails=(400,),
    ),
    Operation(
        method="GET",
        path="/api/timeline",
        handler=get_timeline,
        id="getTimelineAsText",
        tag="Compat",
        query=TimelineQuery,
        answer=ToolAnswer,
    ),
)
