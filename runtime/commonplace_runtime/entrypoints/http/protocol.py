"""
uvicorn's HTTP/1.1 with bounds where it has none: the size of a request's head, the time that head and body may take,
and a 503 that a program can read.

Whoever is refused here has shown no key yet, so nothing is parsed further and the connection is closed.
"""

import asyncio
from typing import Any, Final

import orjson
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from commonplace_runtime.entrypoints.http.errors import UNAVAILABLE_RETRY_SECONDS, json_response
from commonplace_runtime.observability import REQUESTS

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 15.0
"""From the connection, or from the end of the answer before, to the last byte of a request's head."""
BODY_SECONDS: Final = 30.0
"""From there to the last byte of its body, or to MIN_BODY_BYTES of it; and again from there."""
MIN_BODY_BYTES: Final = 512 * 1024
"""What of a longer body has to arrive in each BODY_SECONDS. Time in which it is we who do not read does not count."""
_FAULTS: Final = {
    408: ("RequestTimeoutError", "the request did not arrive in time"),
    431: ("HeadersTooLargeError", f"request line and headers may have {MAX_HEAD_BYTES} bytes"),
}


async def overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer where more requests or connections are open than the settings allow."""
    REQUESTS.labels("*", "overloaded", "503").inc()
    body = {"error": "ServiceUnavailable", "message": "Too many requests are open here; try again."}
    headers = {"Retry-After": str(UNAVAILABLE_RETRY_SECONDS), "Connection": "close"}
    await json_response(body, 503, headers)(scope, receive, send)


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    head_seconds: float = HEAD_SECONDS
    body_seconds: float = BODY_SECONDS
    min_body_bytes: int = MIN_BODY_BYTES

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._was_paused = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_within(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().data_received(data)
        if self._in_head:
            # The parser keeps a header to itself until it is whole. A head that ends in this chunk is counted exactly.
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431)
        if self._deadline is None and self._is_idle() and not self._is_refused:
            self._expect_within(self.head_seconds)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        if self._is_refused:
            return
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse(431)
            return
        self._in_head = False
        self._expect_within(None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            self._body_bytes += len(body)
            super().on_body(body)
            self._was_paused |= self.flow.read_paused

    def on_message_complete(self) -> None:
        if not self._is_refused:
            self._expect_within(None)
            super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        # Here and not with the head: a pipelined request's body waits until the one before it is answered.
        if cycle.more_body:
            self._body_bytes, self._was_paused = 0, False
            self._expect_within(self.body_seconds)
        super()._start_asgi_task(cycle, overloaded if app is service_unavailable else app)  # type: ignore[arg-type]

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _is_body_coming(self) -> bool:
        """Whether enough of the body came since the last look, or more would have come if we had read it."""
        is_enough = self._was_paused or self._body_bytes >= self.min_body_bytes
        self._body_bytes, self._was_paused = 0, self.flow.read_paused
        return is_enough

    def _expect_within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        if not self._is_idle() and not self._in_head and self._is_body_coming():
            self._expect_within(self.body_seconds)
        elif self._is_idle() and not self._in_head:
            self.transport.close()
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Close; answer before, unless that would stand in the answer to an earlier request."""
        self._is_refused = True
        self._expect_within(None)
        is_answering = not self._is_idle() and (self._in_head or self.cycle.response_started)
        if not is_answering and not self.transport.is_closing():
            error, message = _FAULTS[status]
            body = orjson.dumps({"error": error, "message": message})
            self.transport.write(
                STATUS_LINE[status] + b"content-type: application/json; charset=utf-8\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
        if not self._is_idle():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
