"""Export and import as NDJSON: GET and POST /v1/export, POST /v1/import."""

from datetime import UTC, datetime
from typing import Annotated, Final

import structlog
from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.errors import InvalidInput, Unavailable
from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.moments import read_date
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.transfer import EXPECTED_HEADER, FORMAT, Lines, read_cursor
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.entrypoints.http.streams import NDJSON, BodyFault, LineStream, read_lines
from commonplace_runtime.services.export import ExportWish, begin_export, read_include
from commonplace_runtime.services.import_lines import Importer

log = structlog.get_logger(__name__)

Reader = Annotated[Principal, Depends(needs(Access.READ, Spending.EXEMPT))]
Writer = Annotated[Principal, Depends(needs(Access.WRITE))]

_FORMATS: Final = (FORMAT,)
_DIGITS: Final = 15


class ExportQuery(TypedDict, total=False):
    """What to export."""

    projectId: Annotated[str, Field(description="Id or name; left out: every project that the key reaches.")]
    include: Annotated[
        str, Field(description="Comma separated: memories, events, sessions, sources. Default memories,sources.")
    ]
    since: Annotated[str, Field(description="Changed at or after: a date, or milliseconds since 1970.")]
    cursor: Annotated[str, Field(description="Of the last line of type mark or end: go on after it.")]


class ImportQuery(TypedDict, total=False):
    """How to import."""

    projectId: Annotated[
        str, Field(description="Id or name of the project that takes everything; left out: as each line says.")
    ]
    fromLine: Annotated[int, Field(ge=1, description="Lines before this one are not read again.")]
    format: Annotated[str, Field(description="commonplace, the default.")]


class LineFault(TypedDict):
    """A line that was not stored."""

    line: int
    message: str


class ImportAnswer(TypedDict):
    """What became of the lines. `errors`: the first 100. `complete`: the last line of an export was among them."""

    imported: int
    updated: int
    unchanged: int
    skipped: int
    failed: int
    errors: list[LineFault]
    lines: int
    nextLine: int
    complete: bool


async def get_export(request: Request, principal: Reader) -> Response:
    """All that the key may see, one JSON object a line: its team's memories and its own actor's private ones."""
    asked = request.query_params
    return await _export(request, principal, {name: asked.get(name) for name in ExportQuery.__annotations__})


async def post_export(request: Request, principal: Reader) -> Response:
    """The same, with what to export in the body."""
    body = await read_json(request, expected="object")
    issues: list[Issue] = []
    fields = Fields(body.value, issues)
    asked = {name: fields.text(name) for name in ExportQuery.__annotations__}
    if issues:
        raise InvalidFields(issues)
    return await _export(request, principal, asked)


async def _export(request: Request, principal: Principal, asked: dict[str, str | None]) -> Response:
    wish = ExportWish(
        project=_project(asked["projectId"]),
        include=read_include(asked["include"]),
        since=_since(asked["since"]),
        cursor=asked["cursor"] or None,
    )
    if wish.cursor is not None:
        read_cursor(wish.cursor)
    if request.scope["state"].get("is_head"):
        head = Response(media_type=NDJSON)
        del head.headers["content-length"]
        return head
    export = await begin_export(state_of(request).pool, reach_of(request, principal), wish)
    return LineStream(export.lines())


async def post_import(request: Request, principal: Writer) -> Response:
    """
    Store the lines of an export. Sending them again changes nothing.

    A line that is wrong is told with its number and does not take the others along.
    """
    asked = request.query_params
    if (named := asked.get("format", FORMAT)) not in _FORMATS:
        raise InvalidInput(f"unknown format {named[:40]!r}: expected {', '.join(_FORMATS)}")
    importer = Importer(
        state_of(request).pool,
        reach_of(request, principal),
        project=_project(asked.get("projectId")),
        is_admin=Access.PAYLOADS.is_open_to(principal.scopes),
        from_line=_from_line(asked.get("fromLine")),
    )
    lines = Lines()
    fault: str | None = None
    try:
        try:
            async for number, line in read_lines(request, lines):
                await importer.take(number, line)
                if importer.has_given_up:
                    break
        except BodyFault as error:
            fault = str(error)
        summary = await importer.finish()
    except Unavailable:
        log.info("import_interrupted", next_line=importer.summary.next_line)
        raise
    if fault is not None:
        summary.fail(lines.number, fault)
    return json_response(summary.answer())


def _project(text: str | None) -> str | None:
    if text == "":
        raise InvalidInput("`projectId` is empty: leave it out, or name a project")
    return None if text is None else text[:200]


def _since(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = read_date(text)
    if moment is None and text.isascii() and text.isdigit() and len(text) <= _DIGITS:
        try:
            moment = datetime.fromtimestamp(int(text) / 1000, tz=UTC)
        except (ValueError, OverflowError, OSError):
            moment = None
    if moment is None:
        raise InvalidInput("`since` is no time: write it like 2027-01-31T00:00:00Z, or in milliseconds since 1970")
    return moment


def _from_line(text: str | None) -> int:
    if text is None:
        return 1
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) >= 1):
        raise InvalidInput("`fromLine` is the number of a line, from 1")
    return int(text)


_EXAMPLE: Final[Json] = (
    EXPECTED_HEADER + '\n{"type":"memory","project":"default","kind":"decision","content":"Postgres is the queue."}\n'
)

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        method="GET",
        path="/v1/export",
        handler=get_export,
        id="exportMemories",
        tag="Transfer",
        query=ExportQuery,
        answer=str,
        media=NDJSON,
        fails=(400, 404),
    ),
    Operation(
        method="POST",
        path="/v1/export",
        handler=post_export,
        id="exportMemoriesAs",
        tag="Transfer",
        body=ExportQuery,
        answer=str,
        media=NDJSON,
        fails=(404,),
        example={"include": "memories,sources"},
    ),
    Operation(
        method="POST",
        path="/v1/import",
        handler=post_import,
        id="importMemories",
        tag="Transfer",
        body=str,
        body_media=NDJSON,
        query=ImportQuery,
        answer=ImportAnswer,
        fails=(400, 404, 415),
        example=_EXAMPLE,
    ),
)
