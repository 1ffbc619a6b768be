"""
A model provider that is a real HTTP server on loopback: its latency and its outcomes are the test's choice.

Outcomes are told in neutral terms once (`Answer`, `Status`, `Hang`, …), and a `Wire` puts them into the shape of one
API: Anthropic's Messages, Gemini's generateContent, OpenAI's chat completions. One server speaks all three.

`python -m tests.fakes.provider --port 0 --latency 0.05` runs it as a process of its own, which says its address in
the first line of its output and lists its calls at `GET /calls`.
"""

import argparse
import asyncio
import hashlib
import json
import re
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, Self, TypeAlias

import orjson
import uvicorn
import uvloop
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KEY = "test-provider-key"
LISTED_CALLS: Final = 100_000
_EVENT = re.compile(r'<event number="(\d+)"[^>]*>\n(.*?)\n</event>', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """
    An answer with status 200.

    text: what the model says, verbatim; None: one observation an event, computed from the prompt.
    stop_reason: in Anthropic's words, which the other wires translate; words of their own they pass on.
    """

    text: str | None = None
    stop_reason: str = "end_turn"
    input_tokens: int = 100
    output_tokens: int = 20


@dataclass(frozen=True, kw_only=True)
class Status:
    """A refusal by HTTP status. `kind` is the API's word for it, `code` the status."""

    code: int
    kind: str = "api_error"
    message: str = "the fake was told to fail"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hang:
    """No answer until the client goes away or the server ends."""


@dataclass(frozen=True, kw_only=True)
class NotJson:
    """A 200 that no API would send: a proxy's page, half a document."""

    body: str = "<html>bad gateway</html>"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A 200 with this document, whatever the wire would have said."""

    content: object


Outcome: TypeAlias = Answer | Status | Hang | NotJson | Document


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    prompt: str
    model: str

    @property
    def events(self) -> Sequence[str]:
        """The bodies of the numbered events in the prompt."""
        return [body for _, body in _EVENT.findall(self.prompt)]


class Wire(Protocol):
    """How one API spells requests and answers."""

    path: str
    """A path at which the API is served."""

    def serves(self, path: str) -> bool: ...

    def is_authorised(self, headers: Mapping[str, str]) -> bool: ...

    def prompt(self, body: Mapping[str, Any]) -> str: ...

    def model(self, path: str, body: Mapping[str, Any]) -> str: ...

    def answer(self, answer: Answer, text: str, model: str) -> Mapping[str, Any]: ...

    def refusal(self, status: Status) -> Mapping[str, Any]: ...


class AnthropicWire:
    """POST /v1/messages. Accepts both ways in which clients present the key."""

    path = "/v1/messages"

    def serves(self, path: str) -> bool:
        return path == self.path

    def is_authorised(self, headers: Mapping[str, str]) -> bool:
        return headers.get("x-api-key") == KEY or headers.get("authorization") == f"Bearer {KEY}"

    def prompt(self, body: Mapping[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        return content if isinstance(content, str) else "\n".join(block["text"] for block in content)

    def model(self, path: str, body: Mapping[str, Any]) -> str:
        return str(body["model"])

    def answer(self, answer: Answer, text: str, model: str) -> Mapping[str, Any]:
        return {
            "id": "msg_fake",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": answer.stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
        }

    def refusal(self, status: Status) -> Mapping[str, Any]:
        return {"type": "error", "error": {"type": status.kind, "message": status.message}}


class GeminiWire:
    """POST /v1beta/models/{model}:generateContent, with the key in its header."""

    path = "/v1beta/models/gemini-fake:generateContent"
    _path = re.compile(r"/v1beta/models/([^/:]+):generateContent")
    _stops: Final = {"end_turn": "STOP", "max_tokens": "MAX_TOKENS", "refusal": "SAFETY"}

    def serves(self, path: str) -> bool:
        return self._path.fullmatch(path) is not None

    def is_authorised(self, headers: Mapping[str, str]) -> bool:
        return headers.get("x-goog-api-key") == KEY

    def prompt(self, body: Mapping[str, Any]) -> str:
        return "\n".join(part["text"] for part in body["contents"][-1]["parts"])

    def model(self, path: str, body: Mapping[str, Any]) -> str:
        matched = self._path.fullmatch(path)
        return matched[1] if matched else ""

    def answer(self, answer: Answer, text: str, model: str) -> Mapping[str, Any]:
        usage = {"promptTokenCount": answer.input_tokens, "candidatesTokenCount": answer.output_tokens}
        told: dict[str, Any] = {"usageMetadata": usage, "modelVersion": model, "responseId": "req_fake"}
        if answer.stop_reason == "blocked":
            return told | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        content = {"role": "model", "parts": [{"text": text}] if text else []}
        stop = self._stops.get(answer.stop_reason, answer.stop_reason)
        return told | {"candidates": [{"index": 0, "content": content, "finishReason": stop}]}

    def refusal(self, status: Status) -> Mapping[str, Any]:
        return {"error": {"code": status.code, "message": status.message, "status": status.kind.upper()}}


class OpenAIWire:
    """POST …/chat/completions."""

    path = "/v1/chat/completions"
    _stops: Final = {"end_turn": "stop", "refusal": "stop", "max_tokens": "length"}

    def serves(self, path: str) -> bool:
        return path.endswith("/chat/completions")

    def is_authorised(self, headers: Mapping[str, str]) -> bool:
        return headers.get("authorization") == f"Bearer {KEY}"

    def prompt(self, body: Mapping[str, Any]) -> str:
        return str(body["messages"][-1]["content"])

    def model(self, path: str, body: Mapping[str, Any]) -> str:
        return str(body["model"])

    def answer(self, answer: Answer, text: str, model: str) -> Mapping[str, Any]:
        is_refused = answer.stop_reason == "refusal"
        message = {
            "role": "assistant",
            "content": None if is_refused else text,
            "refusal": "I cannot help with that." if is_refused else None,
        }
        stop = self._stops.get(answer.stop_reason, answer.stop_reason)
        return {
            "id": "chatcmpl_fake",
            "object": "chat.completion",
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": stop}],
            "usage": {
                "prompt_tokens": answer.input_tokens,
                "completion_tokens": answer.output_tokens,
                "total_tokens": answer.input_tokens + answer.output_tokens,
            },
        }

    def refusal(self, status: Status) -> Mapping[str, Any]:
        return {"error": {"message": status.message, "type": status.kind, "code": status.kind, "param": None}}


WIRES: Sequence[Wire] = (AnthropicWire(), GeminiWire(), OpenAIWire())


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
    `gate`: while it is clear, calls wait. keeps_calls: False where too many will come to hold them all in `calls`;
    the newest 100,000 are listed at `GET /calls` all the same, the number of all stands at `GET /calls/count`.
    """

    def __init__(
        self,
        *script: Outcome,
        otherwise: Outcome | None = None,
        latency_seconds: float = 0.0,
        port: int = 0,
        keeps_calls: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        self.script: deque[Outcome] = deque(script)
        self.otherwise = otherwise or Answer()
        self.latency_seconds = latency_seconds
        self.write: Callable[[Call], str] = one_each
        self.calls: list[Call] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._keeps_calls = keeps_calls
        self._count = 0
        self._listed: deque[Mapping[str, object]] = deque(maxlen=LISTED_CALLS)
        self._socket = socket.create_server((host, port), backlog=1024)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._app, interface="asgi3", log_level="critical", lifespan="off", timeout_graceful_shutdown=1
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

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """No router: a benchmark's calls should cost this process little."""
        request = Request(scope, receive)
        if scope["method"] == "GET":
            response = self._listing(scope["path"])
        else:
            wire = next((wire for wire in WIRES if wire.serves(scope["path"])), None)
            response = await self._answered(wire, request) if wire else Response(status_code=404)
        await response(scope, receive, send)

    def _listing(self, path: str) -> Response:
        match path:
            case "/calls":
                return _json(list(self._listed))
            case "/calls/count":
                return _json(self._count)
            case _:
                return Response(status_code=404)

    async def _answered(self, wire: Wire, request: Request) -> Response:
        raw = await request.body()
        body, path = orjson.loads(raw), request.url.path
        call = Call(
            path=path,
            headers=dict(request.headers),
            body=body,
            prompt=wire.prompt(body),
            model=wire.model(path, body),
        )
        if not wire.is_authorised(call.headers):
            refused = Status(code=401, kind="authentication_error", message="invalid x-api-key")
            return _json(wire.refusal(refused), status=401)
        self._note(call)
        outcome = self.script.popleft() if self.script else self.otherwise
        await self.gate.wait()
        return await self._outcome(wire, call, outcome, request)

    def _note(self, call: Call) -> None:
        self._count += 1
        digest = hashlib.sha256(call.prompt.encode()).hexdigest()[:16]
        self._listed.append({"number": self._count, "path": call.path, "model": call.model, "prompt": digest})
        if self._keeps_calls:
            self.calls.append(call)
        self.called.set()

    async def _outcome(self, wire: Wire, call: Call, outcome: Outcome, request: Request) -> Response:
        if isinstance(outcome, Hang):
            while not await request.is_disconnected() and not self._server.should_exit:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return Response(status_code=499)
        await asyncio.sleep(self.latency_seconds)
        match outcome:
            case NotJson():
                return Response(outcome.body, media_type="text/html")
            case Document():
                return _json(outcome.content)
            case Status():
                return _json(wire.refusal(outcome), status=outcome.code, headers=outcome.headers)
            case Answer():
                text = self.write(call) if outcome.text is None else outcome.text
                return _json(wire.answer(outcome, text, call.model))


def _json(content: object, *, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    headers = {"request-id": "req_fake", **headers}
    return Response(orjson.dumps(content), status_code=status, headers=headers, media_type="application/json")


async def _serve(host: str, port: int, latency_seconds: float, unanswered: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    script = [Hang()] * unanswered
    async with FakeProvider(
        *script, host=host, port=port, latency_seconds=latency_seconds, keeps_calls=False
    ) as provider:
        print(provider.url, flush=True)
        await stop.wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="A model provider that only pretends.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a pod")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds a call takes")
    parser.add_argument("--unanswered", type=int, default=0, help="how many calls, the first ones, get no answer")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(chosen.host, chosen.port, chosen.latency, chosen.unanswered))


if __name__ == "__main__":
    main()
