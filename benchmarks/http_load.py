"""A load generator that costs little: requests made beforehand, one connection a caller, next to no parsing."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import quantiles
from typing import cast


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a run came to; times in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float


def request(method: str, path: str, token: str, body: bytes = b"", **headers: str) -> bytes:
    """One HTTP/1.1 request as it goes over the wire."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


class _Caller(asyncio.Protocol):
    """Sends a request, waits for its answer, sends the next until told to stop."""

    def __init__(self, requests: Sequence[bytes], expected: bytes) -> None:
        self._requests = cycle(requests)
        self._expected = expected
        self._buffer = bytearray()
        self._left = -1
        self._sent_at = 0.0
        self.took: list[float] = []
        self.stopping = False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._left < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            if not head.startswith(self._expected, 9):
                self._fail(f"unexpected answer: {bytes(self._buffer[: end + 400]).decode(errors='replace')}")
                return
            place = head.index(b"content-length:") + 15
            self._left = int(head[place : (head + b"\r\n").index(b"\r\n", place)])
            del self._buffer[: end + 4]
        if len(self._buffer) < self._left:
            return
        self.took.append(time.perf_counter() - self._sent_at)
        self._buffer.clear()
        self._left = -1
        if self.stopping:
            self.done.set_result(None)
            self._transport.close()
        else:
            self._send()

    def _fail(self, message: str) -> None:
        self.done.set_exception(RuntimeError(message))
        self._transport.abort()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))


async def load(port: int, requests: Sequence[bytes], *, callers: int, seconds: float, status: int) -> Load:
    """
    `callers` connections to loopback that each ask again as soon as they are answered, for so many seconds.

    Raises RuntimeError for any other status than `status`.
    """
    loop = asyncio.get_running_loop()
    share = max(1, len(requests) // callers)
    made = []
    started = time.perf_counter()
    for place in range(callers):
        own = requests[place * share : (place + 1) * share] or requests
        _, caller = await loop.create_connection(
            lambda own=own: _Caller(own, str(status).encode()),
            "127.0.0.1",
            port,  # type: ignore[misc]
        )
        made.append(caller)
    waiting = asyncio.gather(*(caller.done for caller in made))
    done, _ = await asyncio.wait([waiting], timeout=seconds)
    for caller in made:
        caller.stopping = True
    await (waiting if not done else asyncio.shield(waiting))
    took = sorted(1000 * each for caller in made for each in caller.took)
    cuts = quantiles(took, n=100) if len(took) > 1 else took * 99
    return Load(requests=len(took), seconds=time.perf_counter() - started, p50=cuts[49], p95=cuts[94], p99=cuts[98])
