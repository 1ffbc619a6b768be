from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.app import OPERATIONS, create_app
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.shortcut import Shortcut
from commonplace_runtime.settings import Settings


class _Behind:
    """The app behind a shortcut: it counts who comes by."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await PlainTextResponse("behind")(scope, receive, send)


def _scope(method: str, path: str) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "root_path": ""}


async def _ask(shortcut: Shortcut, scope: Scope) -> bytes:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await shortcut(scope, receive, send)
    return b"".join(message.get("body", b"") for message in sent)


@pytest.fixture(scope="module")
def routes() -> Sequence[BaseRoute]:
    return create_app(Settings.model_validate({"database_url": "postgresql://nobody@/nothing"})).router.routes


@pytest.mark.parametrize("spelling", [str, str.upper, lambda path: path + "/"], ids=["plain", "upper", "slash"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_the_short_way_ends_where_the_long_one_does(routes: Sequence[BaseRoute], operation: Any, spelling: Any) -> None:
    asked = _scope(operation.method, spelling(operation.path.replace("{", "").replace("}", "")))
    found = next((route for route in routes if route.matches(asked)[0] is Match.FULL), None)

    way, parts = Shortcut(_Behind(), routes)._find(asked["method"], asked["path"])

    assert found is not None
    assert way is not None
    assert (way.handler, parts) == (found.endpoint, found.matches(asked)[1]["path_params"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/events"), ("GET", "/v1/events"), ("GET", "/v1/nothing")])
async def test_what_no_route_answers_goes_on(routes: Sequence[BaseRoute], method: str, path: str) -> None:
    behind = _Behind()
    assert await _ask(Shortcut(behind, routes), _scope(method, path)) == b"behind"
    assert behind.asked == [path]


async def test_a_handler_that_asks_for_more_is_left_to_fastapi() -> None:
    async def handler(request: Request, x_more: Annotated[str, Header()]) -> Response:
        return PlainTextResponse(x_more)

    async def counted(request: Request, number: int) -> Response:
        return PlainTextResponse(str(number + 1))

    async def plain(request: Request) -> Response:
        return PlainTextResponse("ungated")

    app = FastAPI()
    app.add_api_route("/more", handler, response_model=None)
    app.add_api_route("/numbers/{number}", counted, response_model=None)
    app.add_api_route("/gated", plain, response_model=None, dependencies=[Depends(needs(Access.READ))])
    behind = _Behind()
    shortcut = Shortcut(behind, app.router.routes)

    assert await _ask(shortcut, _scope("GET", "/more")) == b"behind"
    assert await _ask(shortcut, _scope("GET", "/numbers/7")) == b"behind"
    assert await _ask(shortcut, _scope("GET", "/gated")) == b"behind"


async def test_an_earlier_route_with_a_part_comes_before_a_later_one_without() -> None:
    async def first(request: Request, name: str) -> Response:
        return PlainTextResponse(f"first {name}")

    async def second(request: Request) -> Response:
        return PlainTextResponse("second")

    app = FastAPI()
    app.add_api_route("/{name}", first, response_model=None)
    app.add_api_route("/fixed", second, response_model=None)

    assert await _ask(Shortcut(_Behind(), app.router.routes), _scope("GET", "/fixed")) == b"first fixed"
