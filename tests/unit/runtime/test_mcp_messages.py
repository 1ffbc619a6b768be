"""Whatever a client posts is read as messages, or refused as its fault."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import jsonrpc_message_adapter

from commonplace_runtime.entrypoints.mcp_messages import Posted, RpcFault, encode, read_posted

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.sampled_from(["2.0", "1.0", 2]), "method": TEXTS | st.just("tools/call") | VALUES},
    optional={"id": st.integers() | TEXTS | VALUES, "params": st.dictionaries(TEXTS, VALUES, max_size=3) | VALUES},
)
VERSIONS = st.sampled_from([None, "", "2024-10-07", "2024-11-05", "2025-11-25", "2026-07-28", "nonsense", "\xff" * 300])


def read(value: Any, version: str | None) -> Posted:
    return asyncio.run(read_posted(json.dumps(value).encode(), version))


def read_or_fault(value: Any, version: str | None) -> Posted | RpcFault:
    try:
        return read(value, version)
    except RpcFault as fault:
        return fault


@given(value=MESSAGES | st.lists(MESSAGES, max_size=3) | VALUES, version=VERSIONS)
def test_a_body_is_messages_for_the_sdk_or_the_clients_fault(value: Any, version: str | None) -> None:
    posted = read_or_fault(value, version)
    if isinstance(posted, RpcFault):
        assert posted.status == 400
        assert len(json.dumps(posted.body)) < 1000
        return
    for message in posted.messages:
        clean = json.loads(encode(message).decode())
        if posted.version != "2026-07-28":
            jsonrpc_message_adapter.validate_python(clean, by_name=False)


@given(text=TEXTS)
def test_a_text_arrives_as_it_was_but_for_half_pairs(text: str) -> None:
    posted = read({"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"text": text}}, None)
    arrived = json.loads(encode(posted.messages[0]))["params"]["text"]
    paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert arrived == paired.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("version", "told"),
    [(None, None), ("2025-06-18", "2025-06-18"), ("2024-10-07", None), ("2026-07-28", "2026-07-28")],
)
def test_the_sdk_is_told_a_revision_that_it_knows(version: str | None, told: str | None) -> None:
    assert read({"jsonrpc": "2.0", "id": 1, "method": "ping"}, version).version == told


def test_the_called_tools_of_a_batch_are_known() -> None:
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": name}}
        for number, name in enumerate(["recent", "search", 5])
    ]
    assert read([*calls, {"jsonrpc": "2.0", "id": 9, "method": "ping"}], None).called_tools == {"recent", "search"}
