"""
The lines of an export: what kinds there are, how they are split off a stream, read, checked and cleaned.

One JSON object a line: a header, records, marks that say where to go on, and an end without which the stream was cut.
"""

import binascii
import hashlib
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, cast, get_args

import orjson

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.domain.events import LATEST_EPOCH_MS
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.platforms import normalise_platform
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.validation import MAX_DEPTH, has_more_nodes, is_too_deep, type_name

FORMAT: Final = "commonplace"
VERSION: Final = 1
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""A line may be longer than a body, which has 5 MiB: it holds a body's payload, and what was said around it."""
MAX_LINE_NODES: Final = 200_000
EXPECTED_HEADER: Final = '{"type":"header","format":"commonplace","version":1}'
RECORD_TYPES: Final = ("session", "event", "memory")

Kind = Literal["sessions", "events", "memories"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""In the order in which they are exported: what a line refers to has come before it."""
PARTS: Final = (*KINDS, "sources")
"""What an export may include."""
USUAL_PARTS: Final = frozenset({"memories", "sources"})

_SOURCE_TYPES: Final = ("agent_event", "session_summary", "observation_reindex", "manual")
_VISIBILITIES: Final = ("team", "private")
_PROJECT_CHARACTERS: Final = 200
_SHORT_CHARACTERS: Final = 8000
"""Of what lists show of each row: as much as cleaning may make of the longest that other routes take."""
_MOST_TEXTS: Final = 1000
_MAX_COUNT: Final = 2**31 - 1
_LARGEST_INTEGER: Final = 2**64 - 1
_SHA256: Final = re.compile("[0-9a-f]{64}")
_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BREAKS: Final = re.compile(rb"\n(?:[ \t\r]*\n)*")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an export is: the project's id, the kind, and the last of it that was looked at; '' for none."""

    project_id: str
    kind: Kind
    after: str = ""

    @property
    def cursor(self) -> str:
        """The same for whoever wants to go on from there; opaque."""
        text = f"{self.project_id}/{self.kind}/{self.after}"
        return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Place:
    """The place that a cursor names. Raises InvalidInput."""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        project_id, kind, after = text.split("/")
    except (ValueError, binascii.Error):
        project_id, kind, after = "", "", ""
    if kind not in KINDS or len(project_id) != 36 or not _is_place(kind, after):
        raise InvalidInput("`cursor` is none of an export: take it from a line of type mark or end")
    return Place(project_id=project_id, kind=kind, after=after)


def _is_place(kind: str, after: str) -> bool:
    if kind != "sessions":
        return after.isdigit() and len(after) < 19 if after else True
    return not after or _UUID.fullmatch(after) is not None


class Lines:
    """Splits a stream into lines, holding one at most. Numbers count from 1, blank lines too."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_too_long = False
        self.number = 1
        """Of the line that comes next, or has begun."""
        self.skipped_bytes = 0
        """How much of the line that has begun was thrown away, because it is too long."""

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that end in `chunk`, with their numbers; None for one that is too long. Blank ones are left out."""
        start = 0
        for breaks in _BREAKS.finditer(chunk):
            self._add(chunk[start : breaks.start()])
            yield from self._take()
            self.number += breaks[0].count(b"\n") - 1
            start = breaks.end()
        self._add(chunk[start:])

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, where no line break ends it."""
        if self._rest or self._is_too_long:
            yield from self._take()

    def _add(self, part: bytes) -> None:
        if self._is_too_long or len(self._rest) + len(part) > MAX_LINE_BYTES:
            self._is_too_long = True
            self.skipped_bytes += len(self._rest) + len(part)
            self._rest.clear()
        else:
            self._rest += part

    def _take(self) -> Iterator[tuple[int, bytes | None]]:
        number, line, is_too_long = self.number, bytes(self._rest).strip(), self._is_too_long
        self.number += 1
        self._rest.clear()
        self._is_too_long = False
        self.skipped_bytes = 0
        if is_too_long or line:
            yield number, None if is_too_long else line


@dataclass(frozen=True, kw_only=True)
class CleanLine:
    """
    One line: `record` for the store, None for a line that is none. `secrets`: how many of which pattern were taken out.
    """

    type: str
    record: Mapping[str, Json] | None
    secrets: Mapping[str, int]


def read_line(number: int, raw: bytes | None) -> CleanLine:
    """A line, checked and cleaned. Raises InvalidInput with what is wrong with it."""
    if raw is None:
        raise InvalidInput(f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
    value = _parse(raw)
    if not isinstance(value, dict):
        raise InvalidInput(f"expected a JSON object, not {type_name(value)}")
    if has_more_nodes(value, MAX_LINE_NODES):
        raise InvalidInput(f"the line holds more than {MAX_LINE_NODES} values")
    if is_too_deep(value):
        raise InvalidInput(f"the line is nested more than {MAX_DEPTH} deep")
    kind = value.get("type")
    if kind == "header":
        _check_header(value)
    if kind not in RECORD_TYPES:
        if kind in ("header", "mark", "end", "error"):
            return CleanLine(type=str(kind), record=None, secrets={})
        raise InvalidInput(f"unknown type {str(kind)[:40]!r}: expected one of {', '.join(RECORD_TYPES)}")
    fields = _Record(value)
    record: dict[str, Json] = {
        "line": number,
        "type": kind,
        "project": fields.project(),
        "id": fields.id(raw),
        "actor": fields.name("actor"),
    }
    record |= _READERS[str(kind)](fields)
    return CleanLine(type=str(kind), record=record, secrets=fields.secrets)


def check_first_line(raw: bytes | None) -> None:
    """Raises InvalidInput, with what is expected, unless the line is a header of a version that we know."""
    try:
        value = _parse(raw or b"")
    except InvalidInput:
        value = None
    if not isinstance(value, dict) or value.get("type") != "header":
        raise InvalidInput(f"the first line must be a header such as {EXPECTED_HEADER}")
    _check_header(value)


def _check_header(value: Mapping[str, Json]) -> None:
    if value.get("format") != FORMAT:
        raise InvalidInput(
            f"unknown format {str(value.get('format'))[:40]!r}: the header must be like {EXPECTED_HEADER}"
        )
    version = value.get("version")
    if version != VERSION or isinstance(version, bool):
        raise InvalidInput(
            f"unknown version {str(version)[:40]}: this server reads version {VERSION}, {EXPECTED_HEADER}"
        )


def _parse(raw: bytes) -> Json:
    try:
        return cast("Json", orjson.loads(raw))
    except orjson.JSONDecodeError:
        pass
    try:  # lone surrogates and stray bytes pass: they are cleaned before storage
        text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
        return cast("Json", json.loads(text, parse_constant=_refuse, parse_int=_integer, parse_float=_finite))
    except RecursionError:
        raise InvalidInput(f"the line is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise InvalidInput(f"the line is not valid JSON: {error}"[:200]) from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _integer(digits: str) -> int | float:
    number = _finite(digits)
    return number if abs(number) > _LARGEST_INTEGER else int(digits)


class _Record:
    """Reads the fields of one record, cleaned. Each raises InvalidInput for a wrong type; null counts as absent."""

    def __init__(self, given: Mapping[str, Json]) -> None:
        self._given = given
        self.secrets: dict[str, int] = {}

    def clean(self, value: Json) -> Json:
        found = redact(value)
        for pattern, count in found.secrets.items():
            self.secrets[pattern] = self.secrets.get(pattern, 0) + count
        return found.value

    def text(self, name: str) -> str | None:
        value = self._given.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f'"{name}" must be a string, not {type_name(value)}')
        return None if value is None else cast("str", self.clean(value))

    def needed(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise InvalidInput(f'"{name}" is required')
        return value

    def name(self, name: str, default: str | None = None) -> str | None:
        """A text that is not blank."""
        return self.text(name) or default

    def project(self) -> str:
        found = self.name("project", contract.DEFAULT_PROJECT) or ""
        if not found.strip() or len(found) > _PROJECT_CHARACTERS:
            raise InvalidInput(f'"project" must have 1 to {_PROJECT_CHARACTERS} characters')
        return found

    def id(self, raw: bytes) -> str:
        """Its id, or one that is the same for the same line."""
        return self.reference("id") or f"sha256:{hashlib.sha256(raw).hexdigest()}"

    def reference(self, name: str) -> str | None:
        found = self.text(name)
        if found is not None and len(found) > _PROJECT_CHARACTERS:
            raise InvalidInput(f'"{name}" must have at most {_PROJECT_CHARACTERS} characters')
        return found.strip().lower() or None if found is not None else None

    def digest(self, name: str) -> str | None:
        value = self._given.get(name)
        if value is not None and not (isinstance(value, str) and _SHA256.fullmatch(value)):
            raise InvalidInput(f'"{name}" must be a SHA-256, hexadecimal')
        return value

    def object(self, name: str) -> Json:
        value = self._given.get(name)
        if value is not None and not isinstance(value, dict):
            raise InvalidInput(f'"{name}" must be an object, not {type_name(value)}')
        return self.clean(value or {})

    def value(self, name: str) -> Json:
        value = self._given.get(name)
        return self.clean({} if value is None else value)

    def texts(self, name: str) -> list[Json]:
        value = self._given.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidInput(f'"{name}" must be a list of strings')
        if len(value) > _MOST_TEXTS or sum(len(str(item)) for item in value) > _MOST_TEXTS * _PROJECT_CHARACTERS:
            raise InvalidInput(f'"{name}" must have at most {_MOST_TEXTS} short strings')
        return cast("list[Json]", self.clean(value))

    def short(self, name: str, default: str | None = None) -> str | None:
        """A text that lists show."""
        found = self.text(name)
        if found is not None and len(found) > _SHORT_CHARACTERS:
            raise InvalidInput(f'"{name}" must have at most {_SHORT_CHARACTERS} characters')
        return found if default is None else found or default

    def whole(self, name: str, most: int) -> int | None:
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise InvalidInput(f'"{name}" must be a whole number from 0 to {most}')
        return value

    def moment(self, name: str) -> int | None:
        return self.whole(name, LATEST_EPOCH_MS)

    def share(self, name: str, default: float) -> float:
        value = self._given.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidInput(f'"{name}" must be a number from 0 to 1')
        return float(value)

    def choice(self, name: str, options: tuple[str, ...]) -> str | None:
        value = self.text(name)
        if value is not None and value not in options:
            raise InvalidInput(f'"{name}" must be one of {", ".join(options)}')
        return value

    def sources(self) -> list[Json]:
        value = self._given.get("sources")
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidInput(f'"sources" must be a list, not {type_name(value)}')
        found: list[Json] = []
        for item in value:
            if not isinstance(item, dict):
                raise InvalidInput('"sources" must be a list of objects')
            source = _Record(item)
            kind, reference = source.choice("sourceType", _SOURCE_TYPES), source.reference("sourceId")
            if kind is None or reference is None:
                raise InvalidInput('each of "sources" needs "sourceType" and "sourceId"')
            found.append({"sourceType": kind, "sourceId": reference, "createdAtEpoch": source.moment("createdAtEpoch")})
        return found


def _memory(fields: _Record) -> dict[str, Json]:
    return {
        "kind": fields.short("kind", "manual"),
        "title": fields.short("title"),
        "content": fields.needed("content"),
        "metadata": fields.object("metadata"),
        "tags": fields.texts("tags"),
        "keywords": fields.texts("keywords"),
        "importance": fields.share("importance", 0.5),
        "visibility": fields.choice("visibility", _VISIBILITIES),
        "session": fields.reference("session"),
        "supersededBy": fields.reference("supersededBy"),
        "validFrom": fields.moment("validFromEpoch"),
        "validTo": fields.moment("validToEpoch"),
        "model": fields.short("model"),
        "createdAt": fields.moment("createdAtEpoch"),
        "updatedAt": fields.moment("updatedAtEpoch"),
        "sources": fields.sources(),
    }


def _event(fields: _Record) -> dict[str, Json]:
    occurred = fields.moment("occurredAtEpoch")
    if occurred is None:
        raise InvalidInput('"occurredAtEpoch" is required')
    return {
        "session": fields.reference("session"),
        "contentSessionId": fields.text("contentSessionId"),
        "sourceAdapter": fields.name("sourceAdapter", "api"),
        "sourceEventId": fields.text("sourceEventId"),
        "eventType": fields.needed("eventType"),
        "platformSource": normalise_platform(fields.name("platformSource")),
        "payload": fields.value("payload"),
        "metadata": fields.object("metadata"),
        "privateParts": fields.whole("privateParts", _MAX_COUNT) or 0,
        "redactedSecrets": fields.whole("redactedSecrets", _MAX_COUNT) or 0,
        "occurredAt": occurred,
        "receivedAt": fields.moment("receivedAtEpoch"),
        "createdAt": fields.moment("createdAtEpoch"),
    }


def _session(fields: _Record) -> dict[str, Json]:
    return {
        "externalSessionId": fields.text("externalSessionId"),
        "contentSessionId": fields.text("contentSessionId"),
        "agentId": fields.text("agentId"),
        "agentType": fields.text("agentType"),
        "platformSource": normalise_platform(fields.name("platformSource")),
        "identity": fields.digest("identity"),
        "metadata": fields.object("metadata"),
        "startedAt": fields.moment("startedAtEpoch"),
        "endedAt": fields.moment("endedAtEpoch"),
        "lastGeneratedAt": fields.moment("lastGeneratedAtEpoch"),
        "createdAt": fields.moment("createdAtEpoch"),
        "updatedAt": fields.moment("updatedAtEpoch"),
    }


_READERS: Final[Mapping[str, Callable[[_Record], dict[str, Json]]]] = {
    "memory": _memory,
    "event": _event,
    "session": _session,
}
