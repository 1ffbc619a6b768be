"""Long bodies, both ways: lines that arrive are read as they come, lines that leave wait for their reader."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.transfer import Lines
from commonplace_runtime.entrypoints.http.errors import HttpFault

log = structlog.get_logger(__name__)

NDJSON: Final = "application/x-ndjson"
_LINE_TYPES: Final = (NDJSON, "application/ndjson", "application/jsonl", "application/json-lines")
STALL_SECONDS: Final = 120.0
"""How long a reader may leave a page unread before the stream is cut: it can go on from its last mark."""
_STEP_BYTES: Final = 256 * 1024
_MOST_SKIPPED: Final = 64 * 1024 * 1024
_MOST_UNPACKED: Final = 16 * 1024 * 1024
_MOST_RATIO: Final = 200
"""Real exports unpack to less than 30 times their size; gzip itself ends at 1,030."""


class BodyFault(Exception):
    """What is left of the body cannot be read; the lines before are whole. The message is for the caller."""


class _Unpacker:
    """gzip, member by member, in steps of bounded size."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)
        self._packed = 0
        self._unpacked = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What `chunk` unpacks to. Raises BodyFault."""
        self._packed += len(chunk)
        try:
            while True:
                if self._member.eof:
                    chunk = (self._member.unused_data or chunk).lstrip(b"\0")
                    if not chunk:
                        return
                    self._member = zlib.decompressobj(31)
                part = self._member.decompress(chunk, _STEP_BYTES)
                self._unpacked += len(part)
                if self._unpacked > _MOST_UNPACKED and self._unpacked > self._packed * _MOST_RATIO:
                    raise BodyFault(f"the body unpacks to more than {_MOST_RATIO} times its size")
                yield part
                chunk = self._member.unconsumed_tail
                if not self._member.eof and not chunk and len(part) < _STEP_BYTES:
                    return
        except zlib.error as error:
            raise BodyFault("the body is not what its Content-Encoding says") from error

    def finish(self) -> None:
        """Raises BodyFault where the last member has no end."""
        if self._packed and not self._member.eof:
            raise BodyFault("the compressed body ends too early")


class _Plain:
    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def finish(self) -> None:
        pass


async def read_lines(request: Request, lines: Lines) -> AsyncIterator[tuple[int, bytes | None]]:
    """
    The body's lines, as `Lines.feed` gives them, as they arrive; what is not asked for is not read.

    Raises HttpFault 415 for another content type or encoding, BodyFault for what cannot be read further.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in _LINE_TYPES:
        raise HttpFault(415, "UnsupportedMediaTypeError", f"expected Content-Type: {', '.join(_LINE_TYPES)}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise HttpFault(415, "UnsupportedMediaTypeError", f'unsupported content encoding "{encoding[:40]}"')
    unpacker = _Plain() if encoding == "identity" else _Unpacker()
    async for chunk in request.stream():
        for part in unpacker.feed(chunk) if chunk else ():
            for line in lines.feed(part):
                yield line
            if lines.skipped_bytes > _MOST_SKIPPED:
                raise BodyFault(f"a line longer than {_MOST_SKIPPED // 2**20} MiB: nothing after it was read")
            await asyncio.sleep(0)  # a small body may unpack to a large one: the others have their turn
    for line in lines.finish():
        yield line
    unpacker.finish()


class LineStream(Response):
    """
    Chunks as they are made, one waiting at most. A client that leaves, or does not read, ends it: the chunks' source
    is closed then.
    """

    media_type = NDJSON

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.create_task(_disconnected(receive))
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    async with asyncio.timeout(STALL_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    if gone.done():
                        return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("stream_not_read", path=scope["path"])
        except Unavailable as error:  # of the last audit row: the lines are out
            log.warning("stream_not_audited", error=error.message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
