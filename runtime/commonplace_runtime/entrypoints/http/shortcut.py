"""
The short way from a request to its handler: the gate, the handler, the answer.

Handlers are FastAPI's, and are described and registered there. What FastAPI does beside for each request (a walk
through all routes, two exit stacks, a graph of dependencies with one node, three wrappers that look for exceptions)
took a third of the time that a request spends in this process. So a request whose route takes no more than its gate
and parts of its path as text is answered here. Everything else goes on to FastAPI: another method, an unknown path,
a handler that asks for more.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from commonplace_runtime.domain.errors import DomainError
from commonplace_runtime.entrypoints.http.errors import HttpFault, answer_for
from commonplace_runtime.entrypoints.http.operations import Handler
from commonplace_runtime.entrypoints.http.security import Gate, gate_in


@dataclass(frozen=True, kw_only=True)
class _Way:
    """A route that can be taken. gated: under what name the handler takes the caller."""

    route: APIRoute
    handler: Handler
    gate: Gate | None
    request: str
    gated: str


class Shortcut:
    """ASGI middleware inside the envelope; `routes` are those of the app, in the order in which they are looked for."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._known: dict[str, list[tuple[APIRoute, _Way | None]]] = {}
        for route in routes:
            if isinstance(route, APIRoute):
                for method in route.methods or ():
                    self._known.setdefault(method, []).append((route, _way(route)))
        # What has no parts is found at once, unless an earlier route would have taken it.
        self._fixed = {
            (method, route.path): way
            for method, listed in self._known.items()
            for route, way in listed
            if way is not None and self._search(method, route.path) == (way, {})
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        way, parts = self._find(scope["method"], scope["path"])
        if way is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = way.route, parts
        request = Request(scope, receive, send)
        arguments: dict[str, Any] = {way.request: request, **parts}
        try:
            if way.gate is not None:
                arguments[way.gated] = await way.gate(request)
            response = await way.handler(**arguments)
        except (DomainError, HttpFault) as error:
            response = answer_for(error)
        await response(scope, receive, send)

    def _find(self, method: str, path: str) -> tuple[_Way | None, Mapping[str, str]]:
        way = self._fixed.get((method, path))
        return (way, {}) if way is not None else self._search(method, path)

    def _search(self, method: str, path: str) -> tuple[_Way | None, Mapping[str, str]]:
        for route, way in self._known.get(method, ()):
            match = route.path_regex.match(path)
            if match is not None:
                return way, match.groupdict()
        return None, {}


def _way(route: APIRoute) -> _Way | None:
    """
    None for a handler that asks for more than its request, the caller, and parts of its path as they stand there, or
    whose route has dependencies of its own: one may be a gate.
    """
    hints = get_type_hints(route.endpoint)
    gated, gate = gate_in(route.endpoint)
    asked = [name for name in inspect.signature(route.endpoint).parameters if name != gated]
    requests = [name for name in asked if hints[name] is Request]
    parts = {name for name in asked if name not in requests}
    are_texts = all(hints[name] is str for name in parts) and all(
        convertor.regex == "[^/]+" for convertor in route.param_convertors.values()
    )
    if route.dependencies or len(requests) != 1 or parts != set(route.param_convertors) or not are_texts:
        return None
    return _Way(route=route, handler=route.endpoint, gate=gate, request=requests[0], gated=gated)
