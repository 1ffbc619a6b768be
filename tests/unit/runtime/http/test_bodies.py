import asyncio
import json
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from commonplace_runtime.domain.events import clean_events, digest_of, read_event
from commonplace_runtime.domain.models import Json, KeyId, Principal, TeamId
from commonplace_runtime.domain.validation import MAX_DEPTH, InvalidFields, is_too_deep
from commonplace_runtime.entrypoints.http import bodies
from commonplace_runtime.entrypoints.http.bodies import MAX_NODES, parse_json, read_json
from commonplace_runtime.entrypoints.http.errors import HttpFault, json_response

CALLER = Principal(
    key_id=KeyId("k"),
    team_id=TeamId("t"),
    team_slug="s",
    project_id=None,
    project=None,
    actor="agent:a",
    scopes=frozenset(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
FIELDS = ("projectId", "sourceType", "eventType", "occurredAtEpoch", "contentSessionId", "platformSource", "payload")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'["\\ud800"]', ["\ud800"]),
        (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
        (b'["\xff"]', ["\ufffd"]),
        (b"[18446744073709551615]", [2**64 - 1]),
        (b"[18446744073709551616]", [float(2**64)]),
        (b'["\\ud800", 18446744073709551616]', ["\ud800", float(2**64)]),
        (b'["\\ud800", -9223372036854775808, 1.5]', ["\ud800", -(2**63), 1.5]),
    ],
)
def test_what_javascript_clients_write_is_read(raw: bytes, value: Json) -> None:
    assert parse_json(raw) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_json_or_the_clients_fault(raw: bytes) -> None:
    try:
        value = parse_json(raw)
    except HttpFault:
        return
    json.dumps(value, allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_any_json_is_an_event_or_a_list_of_issues(body: Json) -> None:
    try:
        event = read_event(body, now_ms=5)
    except InvalidFields:
        return
    (row,) = clean_events([event], CALLER, [("e", "j")]).rows
    json.dumps(row, allow_nan=False).encode()
    assert len(row["digest"]) == 64


def test_a_digest_knows_no_order_of_keys() -> None:
    one = read_event({"eventType": "x", "payload": {"a": 1, "b": 2}}, now_ms=5)
    two = read_event({"eventType": "x", "payload": {"b": 2, "a": 1}}, now_ms=5)
    assert digest_of(one, one.payload, CALLER) == digest_of(two, two.payload, CALLER)
    later = read_event({"eventType": "x", "payload": {"b": 2, "a": 1}}, now_ms=6)
    assert digest_of(later, later.payload, CALLER) != digest_of(one, one.payload, CALLER)


def nested(depth: int) -> Json:
    value: Json = 1
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def test_nesting_is_bounded_so_that_every_answer_can_be_written() -> None:
    assert not is_too_deep(nested(MAX_DEPTH))
    assert is_too_deep(nested(MAX_DEPTH + 1))
    json_response({"events": [{"event": {"payload": nested(MAX_DEPTH)}}]})


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b"[]," * MAX_NODES + b"1]",
        b"[" + b"1," * MAX_NODES + b"1]",
        b'{"a":[' + b"1," * MAX_NODES + b'"\\ud800"]}',
        b"{" + b",".join(b'"%d":1' % number for number in range(MAX_NODES)) + b"}",
    ],
    ids=["lists", "numbers", "with a lone surrogate", "keys"],
)
async def test_a_body_of_too_many_values_is_refused_with_a_reason(raw: bytes) -> None:
    with pytest.raises(InvalidFields) as refused:
        await read_json(posted(raw), expected="object")
    assert refused.value.issues[0]["message"] == f"More than {MAX_NODES} values"


@pytest.mark.parametrize(
    "raw",
    [b'["' + b"[{" * MAX_NODES + b'\\"\\\\",[],{}]', b"[" + b"[]," * (MAX_NODES - 3) + b"1]"],
    ids=["text", "full"],
)
async def test_a_long_text_of_brackets_is_one_value(raw: bytes) -> None:
    assert (await read_json(posted(raw), expected="object")).size == len(raw)


async def test_too_many_lists_are_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(_: bytes) -> Json:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(bodies, "parse_json", parsed)
    with pytest.raises(InvalidFields):
        await read_json(posted(b"[" + b"[]," * MAX_NODES + b"1]"), expected="object")


async def test_a_large_body_is_read_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()

    def slow(raw: bytes) -> Json:
        assert going_on.wait(10), "the event loop stood still"
        return [len(raw)]

    async def goes_on() -> None:
        going_on.set()

    monkeypatch.setattr(bodies, "parse_json", slow)
    body, _ = await asyncio.gather(read_json(posted(b" " * 200_000 + b"[]"), expected="object"), goes_on())
    assert body.value == [200_002]


def posted(raw: bytes) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": raw, "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}, receive)


def test_an_answer_may_hold_what_orjson_cannot_write() -> None:
    answer = json_response({"big": 2**100, "odd": "\ud800"})
    assert json.loads(bytes(answer.body)) == {"big": 2**100, "odd": "\ud800"}
    assert math.isfinite(json.loads(bytes(answer.body))["big"])
