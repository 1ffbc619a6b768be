"""
A model provider that is a real HTTP server on loopback: its latency and its outcomes are the test's choice.

Outcomes are told in the provider's own terms once (`Answer`, `Status`, `Hang`), and a `Wire` puts them into the shape
of one API. Anthropic's Messages API is here; another provider is another Wire in WIRES.
"""

import asyncio
import json
import re
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "test-provider-key"
_EVENT = re.compile(r'<event number="(\d+)"[^>]*>\n(.*?)\n</event>', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """
    An answer with status 200.

    text: what the model says, verbatim; None: one observation an event, computed from the prompt.
    """

    text: str | None = None
    stop_reason: str = "end_turn"
    input_tokens: int = 100
    output_tokens: int = 20


@dataclass(frozen=True, kw_only=True)
class Status:
    """A refusal by HTTP status."""

    code: int
    kind: str = "api_error"
    message: str = "the fake was told to fail"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hang:
    """No answer until the client goes away or the server ends."""


@dataclass(frozen=True, kw_only=True)
class NotJson:
    """A 200 that no API would send: a proxy's page."""


Outcome: TypeAlias = Answer | Status | Hang | NotJson


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    prompt: str

    @property
    def events(self) -> Sequence[str]:
        """The bodies of the numbered events in the prompt."""
        return [body for _, body in _EVENT.findall(self.prompt)]


class Wire(Protocol):
    """How one API spells requests and answers."""

    path: str

    def is_authorised(self, headers: Mapping[str, str]) -> bool: ...

    def prompt(self, body: Mapping[str, Any]) -> str: ...

    def answer(self, answer: Answer, text: str, body: Mapping[str, Any]) -> Mapping[str, Any]: ...

    def refusal(self, status: Status) -> Mapping[str, Any]: ...


class AnthropicWire:
    """POST /v1/messages. Accepts both ways in which clients present the key."""

    path = "/v1/messages"

    def is_authorised(self, headers: Mapping[str, str]) -> bool:
        return headers.get("x-api-key") == KEY or headers.get("authorization") == f"Bearer {KEY}"

    def prompt(self, body: Mapping[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        return content if isinstance(content, str) else "\n".join(block["text"] for block in content)

    def answer(self, answer: Answer, text: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "id": "msg_fake",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": answer.stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
        }

    def refusal(self, status: Status) -> Mapping[str, Any]:
        return {"type": "error", "error": {"type": status.kind, "message": status.message}}


WIRES: Sequence[Wire] = (AnthropicWire(),)


def observations(*found: Mapping[str, Any]) -> str:
    """An answer's text in the agreed form; every field that is left out gets a harmless value."""
    lists = ("facts", "keywords", "concepts", "files_read", "files_modified")
    whole: dict[str, Any] = {"type": "discovery", "title": "t", "body": "b", "evidence": [1], "confidence": 0.9}
    whole |= {name: [] for name in lists}
    return json.dumps(
        {"observations": [whole | dict(one) for one in found], "skip_reason": None if found else "nothing new"}
    )


def one_each(call: Call) -> str:
    """One observation an event, titled with the event's own text."""
    return observations(
        *({"title": body.strip()[:100], "evidence": [number]} for number, body in enumerate(call.events, start=1))
    )


class FakeProvider:
    """
    `async with FakeProvider() as provider`: dial `provider.url` with the key KEY.

    script: outcomes of the next calls, in order; then `otherwise`. `latency_seconds` applies to all but Hang.
    `gate`: while it is clear, calls wait.
    """

    def __init__(self, *script: Outcome, otherwise: Outcome | None = None, latency_seconds: float = 0.0) -> None:
        self.script: deque[Outcome] = deque(script)
        self.otherwise = otherwise or Answer()
        self.latency_seconds = latency_seconds
        self.write: Callable[[Call], str] = one_each
        self.calls: list[Call] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        routes = [Route(wire.path, self._endpoint(wire), methods=["POST"]) for wire in WIRES]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server._serve([self._socket]))
        async with asyncio.timeout(10):
            while not self._server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
                await asyncio.sleep(0.005)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()

    def _endpoint(self, wire: Wire) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            body = await request.json()
            call = Call(path=wire.path, headers=dict(request.headers), body=body, prompt=wire.prompt(body))
            if not wire.is_authorised(call.headers):
                refused = Status(code=401, kind="authentication_error", message="invalid x-api-key")
                return JSONResponse(wire.refusal(refused), status_code=401)
            self.calls.append(call)
            self.called.set()
            outcome = self.script.popleft() if self.script else self.otherwise
            await self.gate.wait()
            return await self._answer(wire, call, outcome, request)

        return endpoint

    async def _answer(self, wire: Wire, call: Call, outcome: Outcome, request: Request) -> Response:
        if isinstance(outcome, Hang):
            while not await request.is_disconnected() and not self._server.should_exit:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return Response(status_code=499)
        await asyncio.sleep(self.latency_seconds)
        if isinstance(outcome, NotJson):
            return Response("<html>bad gateway</html>", media_type="text/html")
        if isinstance(outcome, Status):
            headers = {"request-id": "req_fake", **outcome.headers}
            return JSONResponse(wire.refusal(outcome), status_code=outcome.code, headers=headers)
        text = self.write(call) if outcome.text is None else outcome.text
        return JSONResponse(wire.answer(outcome, text, call.body), headers={"request-id": "req_fake"})
