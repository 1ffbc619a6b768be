"""The protocol with a language model: what it is shown and what is taken from its answer."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain import extraction
from commonplace_runtime.domain.observations import BODY_CHARACTERS, TITLE_CHARACTERS, Observation, SourceEvent


def event(payload: object, event_type: str = "tool_use") -> SourceEvent:
    return SourceEvent(
        event_type=event_type,
        source_adapter="hook",
        platform_source="claude",
        occurred_at=datetime(2026, 11, 21, 8, tzinfo=UTC),
        payload=payload,
    )


def test_events_are_numbered_and_dated() -> None:
    prompt = extraction.render_prompt("shop", [event({"tool_name": "Bash"}), event("said", "note")], str)

    assert '<event number="1" type="tool_use" tool="Bash" time="2026-11-21T08:00:00+00:00">' in prompt
    assert '<event number="2" type="note" time="2026-11-21T08:00:00+00:00">\nsaid\n</event>' in prompt


@given(
    payload=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    ),
    event_type=st.text(min_size=1),
)
def test_no_payload_breaks_out_of_its_block(payload: object, event_type: str) -> None:
    prompt = extraction.render_prompt("<events>", [event(payload, event_type)], str)

    assert (prompt.count("<event "), prompt.count("</event>"), prompt.count("</events>")) == (1, 1, 1)
    prompt.encode()


def test_a_huge_payload_is_trimmed_to_head_and_tail() -> None:
    text = "HEAD " + "x y " * 100_000 + " TAIL"
    block = extraction.render_event(1, event({"tool_response": {"stdout": text, "originalFile": "whole file"}}), str)

    assert len(block) < extraction.EVENT_CHARACTERS + 500
    assert "HEAD" in block
    assert "TAIL" in block
    assert "whole file" not in block


def test_what_is_redacted_is_redacted_before_it_is_cut() -> None:
    secret = "s3cr3t" * 600
    block = extraction.render_event(1, event({"a": secret}), lambda text: text.replace(secret, "[gone]"))

    assert "s3cr3t" not in block
    assert "[gone]" in block


def test_a_batch_is_bounded_by_size_and_number_and_never_empty() -> None:
    assert extraction.batch_size([event("x")] * 100) == extraction.BATCH_EVENTS
    assert extraction.batch_size([event("word " * 5000)] * 30) == 15
    assert extraction.batch_size([event("word " * 100_000)]) == 1


def answer(**changes: object) -> str:
    one = {"type": "decision", "title": "t", "body": "b", "facts": ["f"], "keywords": ["k"], "evidence": [1], **changes}
    return json.dumps({"observations": [one], "skip_reason": None})


def test_an_answer_becomes_observations_within_bounds() -> None:
    text = answer(title="t" * 500, body="b " * 5000, evidence=[2, 1, 2, 9, "1", True], type="unheard of")
    [observation], _ = extraction.parse_answer(text, events=2)

    assert observation.kind == "discovery"
    assert len(observation.title) <= TITLE_CHARACTERS
    assert len(observation.narrative) <= BODY_CHARACTERS + 40
    assert observation.evidence == (2, 1)


@pytest.mark.parametrize("evidence", [[], [0], [3], [-1], "1", None])
def test_what_cites_nothing_of_its_batch_is_dropped(evidence: object) -> None:
    assert extraction.parse_answer(answer(evidence=evidence), events=2) == ((), None)


@pytest.mark.parametrize(("given", "kept"), [("0.5", {"confidence": 0.5}), ("NaN", {}), ("1e999", {}), ("7", {})])
def test_a_confidence_that_no_store_could_hold_is_left_out(given: str, kept: dict[str, float]) -> None:
    text = answer(confidence="here").replace('"here"', given)
    [observation], _ = extraction.parse_answer(text, events=1)
    assert observation.extra == kept


def test_a_batch_of_one_needs_no_citation() -> None:
    [observation], _ = extraction.parse_answer(answer(evidence=[]), events=1)
    assert observation.evidence == (1,)


@pytest.mark.parametrize(
    "text", ["no", "[]", "3", "null", "{}", '{"a":' * 5000, '{"observations": [1]}', '{"observations": [{}]}']
)
def test_another_form_is_invalid(text: str) -> None:
    with pytest.raises(extraction.InvalidAnswer):
        extraction.parse_answer(text, events=1)


@given(st.text())
def test_no_answer_breaks_the_parser(text: str) -> None:
    try:
        found, _ = extraction.parse_answer(text, events=3)
    except extraction.InvalidAnswer:
        return
    assert all(isinstance(one, Observation) for one in found)


def test_the_schema_is_strict() -> None:
    item = extraction.ANSWER_SCHEMA["properties"]["observations"]["items"]
    assert item["additionalProperties"] is False
    assert set(item["required"]) == set(item["properties"])
