"""claude-mem's answer grammar, rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain.extraction import InvalidAnswer, parse_answer
from commonplace_runtime.domain.observations import content_of, summary_content

FULL = """
<observation>
  <type>decision</type>
  <title>Sessions live in Postgres</title>
  <subtitle>Redis lost them</subtitle>
  <narrative>A restart of Redis &lt;7&gt; logged everybody out.</narrative>
  <facts><fact>table user_sessions</fact><fact> </fact></facts>
  <concepts><concept>why-it-exists: reasons</concept><concept>decision</concept><concept>:x</concept></concepts>
  <files_read><file>app/auth.py</file></files_read>
  <files_modified><file>app/store.py</file><file></file></files_modified>
</observation>
"""


def test_a_block_becomes_an_observation_of_the_whole_batch() -> None:
    [observation] = parse_answer(FULL, events=3).observations

    assert (observation.kind, observation.title) == ("decision", "Sessions live in Postgres")
    assert observation.narrative == "A restart of Redis &lt;7&gt; logged everybody out."
    assert observation.facts == ("table user_sessions",)
    assert observation.concepts == ("why-it-exists",)
    assert (observation.files_read, observation.files_modified) == (("app/auth.py",), ("app/store.py",))
    assert observation.evidence == (1, 2, 3)
    assert content_of(observation).startswith("Sessions live in Postgres\n\nRedis lost them\n\nA restart")


def test_several_blocks_with_prose_around_are_read() -> None:
    text = f"Here they are: {FULL} and {FULL.replace('decision', 'security_note')}"
    assert [found.kind for found in parse_answer(text, events=1).observations] == ["decision", "security_note"]


@pytest.mark.parametrize(
    ("text", "kind", "title"),
    [
        ("<observation><title>t</title></observation>", "bugfix", "t"),
        ("<observation><type></type><narrative>only told</narrative></observation>", "bugfix", "only told"),
        ("<observation><type>odd</type><facts><fact>f</fact></facts></observation>", "odd", "f"),
        ("<observation><concepts><concept>gotcha</concept></concepts></observation>", "bugfix", "gotcha"),
        ("<observation><title>first</title><title>second</title></observation>", "bugfix", "first"),
        ("<observation></observation><observation><title>t</title></observation>", "bugfix", "t"),
        ("```xml\n<observation><title>t</title></observation>\n```", "bugfix", "t"),
    ],
)
def test_what_a_block_leaves_out_is_filled_by_rule(text: str, kind: str, title: str) -> None:
    [observation] = parse_answer(text, events=1).observations
    assert (observation.kind, observation.title) == (kind, title)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<skip_summary/>", "nothing to record"),
        ('<skip_summary reason="routine"/>', "routine"),
        (f'{FULL}<skip_summary reason="" />', ""),
        ("<skip_summary reason='single'/>", "nothing to record"),
    ],
)
def test_skip_summary_wins_over_everything(text: str, reason: str) -> None:
    answer = parse_answer(text, events=1)
    assert (answer.observations, answer.summary, answer.skip_reason) == ((), None, reason)


def test_a_summary_block_is_the_sessions() -> None:
    text = "<summary><request>Raise it</request><next_steps> deploy </next_steps><notes>n</notes></summary>"
    answer = parse_answer(text + FULL, events=1)

    assert answer.observations == ()
    assert answer.summary is not None
    assert summary_content(answer.summary) == "Request: Raise it\n\nNext steps: deploy\n\nNotes: n"


@pytest.mark.parametrize(
    "text",
    [
        "I saw nothing special.",
        "<observation>",
        "<observation></observation>",
        '<observation id="1"><title>t</title></observation>',
        "<OBSERVATION><title>t</title></OBSERVATION>",
        "<observation><type>decision</type><concepts><concept>decision</concept></concepts></observation>",
        "<summary><notes>only</notes></summary>",
        "<summary></summary>",
        "<skip_summary>",
        "<observations><title>t</title></observations>",
    ],
)
def test_another_form_is_invalid(text: str) -> None:
    with pytest.raises(InvalidAnswer):
        parse_answer(text, events=1)


def test_tags_without_end_take_no_time() -> None:
    with pytest.raises(InvalidAnswer):
        parse_answer("<observation>" * 15_000, events=1)
    with pytest.raises(InvalidAnswer):
        parse_answer("<observation " * 15_000, events=1)


@given(st.lists(st.sampled_from(["<observation>", "</observation>", "<title>", "</title>", "<summary>", "x", "<"])))
def test_no_text_breaks_the_grammar(parts: list[str]) -> None:
    try:
        answer = parse_answer("".join(parts), events=2)
    except InvalidAnswer:
        return
    assert all(observation.title for observation in answer.observations)
