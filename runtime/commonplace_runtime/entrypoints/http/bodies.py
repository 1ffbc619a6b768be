"""Reads JSON bodies after authentication: bounded, unpacked, and forgiving where JavaScript clients are careless."""

import asyncio
import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import Final, NoReturn

import orjson
from starlette.requests import Request

from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.validation import (
    MAX_DEPTH,
    InvalidFields,
    Issue,
    has_more_nodes,
    is_too_deep,
    wrong_type,
)
from commonplace_runtime.entrypoints.http.errors import HttpFault

MAX_BODY_BYTES: Final = 5 * 1024 * 1024
MAX_NODES: Final = 200_000
"""Values that a body may hold, counting those inside others: real tool output stays below a tenth."""
_PARSE_ASIDE_BYTES: Final = 100_000
"""From this size on, a body is read in a thread: it would hold up everybody else's requests."""
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_LARGEST_INTEGER: Final = 2**64 - 1
_SMALLEST_INTEGER: Final = -(2**63)
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 47}


@dataclass(frozen=True, kw_only=True)
class Body:
    """A parsed body; `value` is None when there was none of JSON's content type. `size` in bytes, unpacked."""

    value: Json
    size: int


async def read_json(request: Request, *, expected: str) -> Body:
    """
    The request's JSON object or list.

    Raises HttpFault: 400 `SyntaxError` for what is no JSON, 413 above 5 MiB, 415 for an unknown encoding;
    InvalidFields for another content type than JSON (`expected` names what should have come), absurd nesting or an
    absurd number of values.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise InvalidFields([wrong_type((), expected, "undefined")])
    raw = await read_bytes(request)
    if not raw.strip():
        return Body(value={}, size=0)
    return Body(value=await parse_body(raw), size=len(raw))


async def parse_body(raw: bytes) -> Json:
    """
    The object or list in `raw`.

    Raises HttpFault 400 for what is no JSON, InvalidFields for absurd nesting or an absurd number of values.
    """
    return _parse(raw) if len(raw) < _PARSE_ASIDE_BYTES else await asyncio.to_thread(_parse, raw)


def _parse(raw: bytes) -> Json:
    containers = raw.count(b"[") + raw.count(b"{")
    if containers > MAX_NODES and _has_more_containers(raw, MAX_NODES):
        raise _too_big(MAX_NODES, f"More than {MAX_NODES} values")
    value = parse_json(raw)
    if not isinstance(value, dict | list):
        raise HttpFault(400, "SyntaxError", "the body must be a JSON object or array")
    # First what ends early: the depth is looked for in all that there is. A value has two bytes, with its comma.
    if len(raw) > 2 * MAX_NODES and has_more_nodes(value, MAX_NODES):
        raise _too_big(MAX_NODES, f"More than {MAX_NODES} values")
    if containers > MAX_DEPTH and is_too_deep(value):
        raise _too_big(MAX_DEPTH, f"Nested more than {MAX_DEPTH} deep")
    return value


def _has_more_containers(raw: bytes, limit: int) -> bool:
    """Whether JSON has more than `limit` lists and objects outside of strings: making them holds all threads up."""
    bare = _STRING.sub(b"", raw)
    return bare.count(b"[") + bare.count(b"{") > limit


def _too_big(maximum: int, message: str) -> InvalidFields:
    issue: Issue = {"code": "too_big", "maximum": maximum, "path": [], "message": message}
    return InvalidFields([issue])


async def read_bytes(request: Request) -> bytes:
    """The body, unpacked. Raises HttpFault 413 and 415, and 400 for what is not packed as it says."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOW_BITS:
        raise HttpFault(415, "UnsupportedMediaTypeError", f'unsupported content encoding "{encoding[:40]}"')
    if int(_digits(request.headers.get("content-length"))) > MAX_BODY_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    packed = b"".join(chunks)
    return packed if encoding == "identity" or not packed else _unpack(packed, _WINDOW_BITS[encoding])


def _digits(header: str | None) -> str:
    return header if header is not None and header.isascii() and header.isdigit() and len(header) < 19 else "0"


def _unpack(packed: bytes, window_bits: int) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    try:
        body = unpacker.decompress(packed, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise HttpFault(400, "SyntaxError", "the body is not what its Content-Encoding says") from error
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    if not unpacker.eof:
        raise HttpFault(400, "SyntaxError", "the compressed body ends too early")
    return body


def _too_large() -> HttpFault:
    return HttpFault(413, "PayloadTooLargeError", "request entity too large")


def parse_json(raw: bytes) -> Json:
    """
    JSON as JavaScript clients write it: lone surrogates and stray bytes pass (they are cleaned before storage),
    integers above 64 bits become floats. Raises HttpFault 400 for anything else that is no JSON.
    """
    try:
        return orjson.loads(raw)  # type: ignore[no-any-return]
    except orjson.JSONDecodeError:
        pass
    try:
        text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
        value: Json = json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int, parse_float=_parse_float)
    except RecursionError as error:
        raise HttpFault(400, "SyntaxError", f"the body is nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:
        raise HttpFault(400, "SyntaxError", f"the body is not valid JSON: {error}"[:300]) from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _parse_int(digits: str) -> int | float:
    if len(digits) < 19:
        return int(digits)
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    exact = int(digits)
    return exact if _SMALLEST_INTEGER <= exact <= _LARGEST_INTEGER else number


def _parse_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number
