"""The rules, on events of the shapes that agents' hooks really send."""

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain.diffs import MAX_DIFF_LINES, MAX_EDITS
from commonplace_runtime.domain.extraction import SUMMARY_CHARACTERS
from commonplace_runtime.domain.extractive_rules import observe
from commonplace_runtime.domain.observations import (
    BODY_CHARACTERS,
    TITLE_CHARACTERS,
    Generated,
    Observation,
    SessionSummary,
    SourceEvent,
    content_of,
    summary_content,
    summary_metadata,
)
from commonplace_runtime.llm.extractive import ExtractiveGenerator
from commonplace_runtime.llm.ports import Batch


def event(payload: object, event_type: str = "tool_use") -> SourceEvent:
    return SourceEvent(
        event_type=event_type,
        source_adapter="hook",
        platform_source="claude",
        occurred_at=datetime(2026, 11, 21, tzinfo=UTC),
        payload=payload,
    )


def tool(name: str, given_input: Mapping[str, Any], response: object) -> SourceEvent:
    return event(
        {
            "tool_name": name,
            "tool_input": given_input,
            "tool_response": response,
            "cwd": "/home/ada/shop",
            "platformSource": "claude",
        }
    )


def said(text: str) -> SourceEvent:
    return event({"last_assistant_message": text, "platformSource": "claude"}, "assistant_message")


def made(source: SourceEvent) -> Observation:
    observation = observe(source, 3)
    assert observation is not None
    assert observation.evidence == (3,)
    return observation


READ = {
    "type": "text",
    "file": {
        "filePath": "/home/ada/shop/src/retry.py",
        "numLines": 3,
        "startLine": 1,
        "totalLines": 3,
        "content": "import random\n\nclass RetryPolicy:\n    max_attempts = 7\n"
        "    def next_delay(self, attempt: int) -> float:\n        ...",
    },
}
EDIT_INPUT = {
    "file_path": "/home/ada/shop/src/retry.py",
    "old_string": "    max_attempts = 7\n",
    "new_string": "    max_attempts = 12\n",
}
PYTEST = (
    "tests/test_cart.py F.\n=== FAILURES ===\nE   AssertionError: assert 3 == 4\n"
    "===== 1 failed, 11 passed in 2.31s ====="
)


@pytest.mark.parametrize(
    ("source", "kind", "title", "rule", "words"),
    [
        pytest.param(
            tool("Read", {"file_path": "/home/ada/shop/src/retry.py"}, READ),
            "discovery",
            "Read retry.py: class RetryPolicy",
            "read",
            ["src/retry.py", "max_attempts = 7", "next_delay"],
            id="read",
        ),
        pytest.param(
            tool("Read", {"file_path": "/etc/app.toml"}, "     1→[server]\n     2→port = 8443\n     3→workers = 4\n"),
            "discovery",
            "Read app.toml",
            "read",
            ["port = 8443"],
            id="read-as-text",
        ),
        pytest.param(
            tool(
                "Edit", EDIT_INPUT, {"filePath": "/home/ada/shop/src/retry.py", "oldString": "…", "structuredPatch": []}
            ),
            "change",
            "Changed retry.py: max_attempts = 12",
            "edit",
            ["src/retry.py", "- max_attempts = 7", "+ max_attempts = 12"],
            id="edit",
        ),
        pytest.param(
            tool(
                "MultiEdit",
                {
                    "file_path": "/x/a.py",
                    "edits": [
                        {"old_string": "", "new_string": "import gzip"},
                        {"old_string": "b = 1", "new_string": "b = 2"},
                    ],
                },
                {},
            ),
            "change",
            "Changed a.py: import gzip",
            "edit",
            ["+ import gzip", "+ b = 2", "- b = 1"],
            id="multi-edit",
        ),
        pytest.param(
            tool(
                "Write",
                {"file_path": "/home/ada/shop/docs/adr.md", "content": "# Use Valkey\n\nWe chose Valkey over Redis."},
                {"type": "create", "filePath": "/home/ada/shop/docs/adr.md"},
            ),
            "change",
            "Created adr.md: # Use Valkey",
            "write",
            ["docs/adr.md", "Valkey over Redis"],
            id="write",
        ),
        pytest.param(
            tool(
                "apply_patch",
                {"input": "*** Begin Patch\n*** Update File: src/db.go\n-timeout := 5\n+timeout := 30\n*** End Patch"},
                "ok",
            ),
            "change",
            "Changed db.go: timeout := 30",
            "patch",
            ["src/db.go", "+timeout := 30"],
            id="codex-patch",
        ),
        pytest.param(
            tool(
                "Bash",
                {"command": "cd /home/ada/shop && pytest -q", "description": "Run tests"},
                {"stdout": PYTEST, "stderr": "", "interrupted": False},
            ),
            "discovery",
            "`pytest -q`: 1 failed, 11 passed in 2.31s",
            "command",
            ["AssertionError: assert 3 == 4"],
            id="failing-tests",
        ),
        pytest.param(
            tool(
                "Bash",
                {"command": "npm run build"},
                "Error: Exit code 2\nsrc/app.ts(3,1): error TS2304: Cannot find name 'foo'.",
            ),
            "discovery",
            "`npm run build`: failed with exit status 2",
            "command",
            ["TS2304"],
            id="failing-build",
        ),
        pytest.param(
            tool(
                "Bash",
                {"command": "git commit -m 'Raise retry limit to 12'"},
                {"stdout": "[main 3f2a1bc] Raise retry limit to 12", "stderr": ""},
            ),
            "discovery",
            "`git commit",
            "command",
            ["3f2a1bc"],
            id="commit",
        ),
        pytest.param(
            tool("shell", {"command": ["bash", "-lc", "psql -c 'select 1'"]}, {"output": "1 row", "exit_code": 0}),
            "discovery",
            "`bash -lc psql -c 'select 1'`: succeeded",
            "command",
            ["1 row"],
            id="codex-shell",
        ),
        pytest.param(
            tool(
                "Grep",
                {"pattern": "retry_after", "path": "src"},
                {"mode": "files_with_matches", "filenames": ["src/a.py", "src/b.py"], "numFiles": 2},
            ),
            "discovery",
            "Searched for retry_after: 2 files",
            "search",
            ["src/b.py"],
            id="grep",
        ),
        pytest.param(
            tool(
                "WebFetch",
                {"url": "https://valkey.io/docs", "prompt": "defaults?"},
                {"result": "The default eviction policy is noeviction.", "code": 200},
            ),
            "discovery",
            "WebFetch: https://valkey.io/docs",
            "answer",
            ["noeviction"],
            id="web",
        ),
        pytest.param(
            tool(
                "Task",
                {"description": "find the limiter", "prompt": "…"},
                {"content": [{"type": "text", "text": "The limiter lives in gateway/limits.lua."}]},
            ),
            "discovery",
            "Task: find the limiter",
            "answer",
            ["gateway/limits.lua"],
            id="sub-agent",
        ),
        pytest.param(
            tool(
                "mcp__linear__get_issue",
                {"id": "SHOP-42"},
                [{"type": "text", "text": "SHOP-42: cart total is wrong for EUR"}],
            ),
            "discovery",
            "linear get_issue:",
            "answer",
            ["cart total is wrong for EUR"],
            id="mcp",
        ),
        pytest.param(
            said("I looked at it.\n\nWe decided to keep sessions in Postgres because Redis loses them on restart."),
            "decision",
            "We decided to keep sessions in Postgres",
            "prose",
            ["Redis loses them"],
            id="decision",
        ),
        pytest.param(
            said("All done. Always run `make schema` after touching a migration."),
            "convention",
            "Always run `make schema`",
            "prose",
            ["migration"],
            id="convention",
        ),
        pytest.param(
            said("The root cause was a missing index on orders.customer_id."),
            "bugfix",
            "The root cause was",
            "prose",
            ["orders.customer_id"],
            id="bugfix",
        ),
        pytest.param(
            said("Works now. TODO: rotate the staging certificate before March."),
            "todo",
            "TODO: rotate the staging certificate",
            "prose",
            ["March"],
            id="todo",
        ),
        pytest.param(
            said("The gateway listens on port 9443 and forwards to three replicas."),
            "discovery",
            "The gateway listens on port 9443",
            "prose",
            ["three replicas"],
            id="fact",
        ),
        pytest.param(
            event({"prompt": "Please add a retry to the payment client", "cwd": "/x"}, "user_prompt"),
            "request",
            "Please add a retry to the payment client",
            "prose",
            ["payment client"],
            id="prompt",
        ),
        pytest.param(
            event("Note that invoices are numbered per country.", "note"),
            "discovery",
            "Note that invoices",
            "prose",
            ["per country"],
            id="plain-text",
        ),
        pytest.param(
            event({"service": "billing", "version": "4.2", "state": "rolled back after errors"}, "deployment"),
            "discovery",
            "deployment:",
            "fields",
            ["rolled back after errors"],
            id="unknown-fields",
        ),
    ],
)
def test_each_shape_becomes_a_titled_memory(
    source: SourceEvent, kind: str, title: str, rule: str, words: list[str]
) -> None:
    observation = made(source)

    assert (observation.kind, observation.extra["rule"]) == (kind, rule)
    assert observation.title.startswith(title)
    content = content_of(observation)
    assert [word for word in words if word not in content] == []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(tool("TodoWrite", {"todos": [{"content": "x y z a b"}]}, {"oldTodos": []}), id="todo-tool"),
        pytest.param(tool("ListMcpResourcesTool", {}, [{"text": "many words are here to see"}]), id="mcp-list"),
        pytest.param(tool("SlashCommand", {"command": "/clear"}, "done and done and done"), id="slash"),
        pytest.param(tool("Skill", {"skill": "pdf"}, "launched the skill for you now"), id="skill"),
        pytest.param(tool("Bash", {"command": "ls -la"}, {"stdout": "total 4\nREADME.md"}), id="listing"),
        pytest.param(tool("Bash", {"command": "git status"}, {"stdout": "nothing to commit"}), id="git-status"),
        pytest.param(tool("Bash", {"command": "mkdir -p a/b"}, {"stdout": "", "stderr": ""}), id="silent"),
        pytest.param(tool("LS", {"path": "/x"}, "- a\n- b\n- c\n- d\n- e"), id="ls-tool"),
        pytest.param(tool("Glob", {"pattern": "**/*.py"}, {"filenames": ["a.py"]}), id="glob"),
        pytest.param(tool("Read", {"file_path": "/x/empty"}, {"file": {"content": ""}}), id="empty-read"),
        pytest.param(tool("Grep", {"pattern": "zzz"}, {"filenames": [], "numFiles": 0}), id="no-match"),
        pytest.param(
            tool("Edit", EDIT_INPUT, {"is_error": True, "content": "String to replace not found"}), id="failed-edit"
        ),
        pytest.param(said("Done."), id="small-talk"),
        pytest.param(event({"prompt": "ok go on"}, "user_prompt"), id="short-prompt"),
        pytest.param(event({}), id="empty"),
        pytest.param(event(None), id="null"),
        pytest.param(event([1, 2, 3]), id="numbers"),
    ],
)
def test_noise_gives_nothing(source: SourceEvent) -> None:
    assert observe(source, 1) is None


def test_joined_names_are_found_by_their_words() -> None:
    observation = made(said("The maxRetryDelay of the HttpGatewayClient is 30 seconds in payment_gateway.toml."))

    assert {"maxRetryDelay", "HttpGatewayClient", "payment_gateway.toml", "retry", "gateway"} <= set(
        observation.keywords
    )


def test_a_long_message_keeps_its_decision_and_its_bounds() -> None:
    filler = "Then I looked at another file and it was fine. " * 200
    observation = made(said(f"{filler}\n\nWe agreed to ship the Lisbon region first.\n\n{filler}"))

    assert observation.kind == "decision"
    assert len(observation.title) <= TITLE_CHARACTERS
    assert len(observation.narrative) <= BODY_CHARACTERS + 60
    assert "Lisbon" in content_of(observation)


@given(
    payload=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "tool_name",
                        "tool_input",
                        "tool_response",
                        "file",
                        "content",
                        "command",
                        "file_path",
                        "edits",
                        "stdout",
                    ]
                )
                | st.text(),
                inner | st.sampled_from(["Read", "Edit", "Bash", "Write", "Grep", "apply_patch"]),
                max_size=5,
            )
        ),
        max_leaves=20,
    ),
    event_type=st.sampled_from(["tool_use", "user_prompt", "assistant_message", "x"]),
)
def test_no_payload_breaks_a_rule(payload: object, event_type: str) -> None:
    observation = observe(event(payload, event_type), 1)
    if observation is not None:
        assert observation.title
        assert len(content_of(observation)) < 6000


@pytest.mark.parametrize(
    "text",
    [
        "a." * 100_000,
        "`" * 50_000,
        "/".join(["ab"] * 30_000),
        "-" * 80_000,
        "A" * 80_000,
        "a_" * 40_000,
        "error " * 15_000,
        " \n" * 40_000,
    ],
    ids=["dots", "ticks", "slashes", "dashes", "capitals", "snakes", "errors", "blank"],
)
def test_no_text_makes_a_rule_slow(text: str) -> None:
    observe(said(text), 1)
    observe(tool("Bash", {"command": f"make {text}"}, {"stdout": text, "exit_code": 1}), 1)
    observe(tool("Read", {"file_path": "/a"}, text), 1)
    lines = [f"value_{number} = {text[:100]}" for number in range(500)]
    edit = {"file_path": "/a", "old_string": "\n".join(lines), "new_string": "\n".join(f"{line}!" for line in lines)}
    observe(tool("Edit", edit, {}), 1)


def within(steps: int, work: Callable[[], object]) -> None:
    """Do `work`, and fail as soon as it has gone through more than `steps` lines of Python."""
    taken = 0

    def count(_frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal taken
        taken += 1
        assert taken <= steps, "too much work"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)


def test_the_work_on_one_event_does_not_grow_with_its_edits() -> None:
    one = {"old_string": "x\ny\n" * 200, "new_string": "x\nz\n" * 99}
    source = tool("MultiEdit", {"file_path": "/a.py", "edits": [one] * 250}, {})
    within(60_000, lambda: observe(source, 1))


def test_lines_beyond_the_bound_are_not_looked_at() -> None:
    edits = [{"old_string": "", "new_string": f"line {number}\n" * 30} for number in range(MAX_EDITS * 2)]
    shown = made(tool("MultiEdit", {"file_path": "/a.py", "edits": edits}, {})).narrative
    assert f"line {MAX_DIFF_LINES // 30}" in shown
    assert f"line {MAX_EDITS - 1}" not in shown


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("a\nb\nc", "a\nB\nc", "- b\n+ B"),
        ("a\nb\nc\nd", "a\nc\nd\ne", "- b\n+ e"),
        ("a\na\na", "a\na", "- a"),
        ("a\nb", "b\na", "- a\n- b\n+ b\n+ a"),
        ("    a", "a", "- a\n+ a"),
        ("", "a\n\nb", "+ a\n+ b"),
    ],
)
def test_an_edit_shows_the_lines_that_went_and_came(old: str, new: str, shown: str) -> None:
    change = made(tool("Edit", {"file_path": "/a", "old_string": f"{{\n{old}\n}}", "new_string": f"{{\n{new}\n}}"}, {}))
    assert change.narrative.split("\n", 1)[1] == shown


def test_an_edit_that_changes_no_line_gives_nothing() -> None:
    assert observe(tool("Edit", {"file_path": "/a", "old_string": "a", "new_string": "a"}, {}), 1) is None


class Held(dict[str, object]):
    """A payload that can only be read while somebody else goes on."""

    def __init__(self, going_on: threading.Event) -> None:
        super().__init__(text="We decided to use port 5433 for staging.")
        self._going_on = going_on

    def get(self, key: str, default: object = None) -> Any:
        assert self._going_on.wait(10), "the event loop stood still"
        return super().get(key, default)


async def test_other_work_goes_on_while_rules_are_applied() -> None:
    going_on = threading.Event()

    async def goes_on() -> None:
        going_on.set()

    batch = Batch(project_name="default", events=[event(Held(going_on))])
    made_of_it, _ = await asyncio.gather(ExtractiveGenerator().generate(batch), goes_on())
    assert len(made_of_it.observations) == 1


@pytest.mark.parametrize("payload", ['{"a":' * 3000, tool("Bash", {"command": "make"}, '{"a":' * 3000).payload])
def test_json_that_nests_too_deep_is_text(payload: object) -> None:
    observe(event(payload), 1)


def test_a_text_that_is_its_own_title_stands_once() -> None:
    text = "The staging database listens on port 5433."
    assert content_of(made(said(text))) == text


async def summary_of(*events: SourceEvent, **state: Any) -> SessionSummary | None:
    batch = Batch(project_name="default", events=events, **state)
    return (await ExtractiveGenerator().generate(batch)).summary


SESSION = [
    event({"prompt": "Please raise the retry limit to 12"}, "user_prompt"),
    tool("Read", {"file_path": "/home/ada/shop/src/retry.py"}, READ),
    tool("Edit", EDIT_INPUT, {}),
    tool("Bash", {"command": "git commit -m 'Raise it'"}, {"stdout": "[main 3f2a1bc] Raise it", "exitCode": 0}),
    said("The gateway allows 15 tries at most."),
    event({"prompt": "yes please"}, "user_prompt"),
    said("TODO: tell operations about the limit."),
]


async def test_a_session_is_summed_up_by_its_events() -> None:
    summary = await summary_of(*SESSION)

    assert summary == SessionSummary(
        request="Please raise the retry limit to 12",
        investigated="retry.py",
        learned="The gateway allows 15 tries at most.",
        completed="Changed retry.py: max_attempts = 12; `git commit -m 'Raise it'`: succeeded",
        next_steps="TODO: tell operations about the limit.",
    )
    assert summary_content(summary).startswith(
        "Request: Please raise the retry limit to 12\n\nInvestigated: retry.py\n\n"
    )


async def test_a_later_batch_adds_to_the_summary() -> None:
    before = SessionSummary(request="Raise it", completed="Changed a.py: x", next_steps="deploy", notes="n")
    summary = await summary_of(tool("Edit", EDIT_INPUT, {}), summary=before, request="Raise the limit")

    assert summary == SessionSummary(
        request="Raise the limit",
        completed="Changed a.py: x; Changed retry.py: max_attempts = 12",
        next_steps="deploy",
        notes="n",
    )


async def test_a_batch_that_adds_nothing_leaves_the_summary_unless_the_session_ends() -> None:
    before = SessionSummary(request="Raise it")

    assert await summary_of(said("ok"), summary=before) is None
    assert await summary_of(summary=before, closes_session=True) == before
    assert await summary_of(closes_session=True) is None
    assert await summary_of(closes_session=True, request="Raise it") == before


async def test_a_summary_forgets_the_oldest_first_and_stays_short() -> None:
    summary: SessionSummary | None = None
    for number in range(60):
        changed = {**EDIT_INPUT, "new_string": f"max_attempts = {number} {'#' * number * 9}"}
        summary = await summary_of(tool("Edit", changed, {}), summary=summary) or summary

    assert summary is not None
    assert len(summary.completed) <= SUMMARY_CHARACTERS
    assert "max_attempts = 59" in summary.completed
    assert "max_attempts = 1 " not in summary.completed


def test_a_summary_row_has_claude_mems_six_fields() -> None:
    made_by = Generated(observations=(), provider="extractive", model=None)
    metadata = summary_metadata(SessionSummary(request="r"), made_by)

    assert {name: metadata[name] for name in ("request", "learned", "notes")} == {
        "request": "r",
        "learned": None,
        "notes": None,
    }
    assert (metadata["provider"], metadata["model"]) == ("extractive", None)


def test_rules_stand_in_for_a_model_and_lose_nothing_of_a_run() -> None:
    parts = [tool("Read", {"file_path": f"/home/ada/shop/{n}.py"}, f"def total_{n}(cart): return 0") for n in range(3)]
    batch = Batch(
        project_name="shop", events=[said("We look at the totals of the cart."), replace(parts[0], parts=parts)]
    )

    generated = asyncio.run(ExtractiveGenerator().generate(batch))

    by_rule = [(one.extra["rule"], list(one.evidence), list(one.files_read)) for one in generated.observations]
    assert by_rule == [("prose", [1], []), *(("read", [2], [f"{n}.py"]) for n in range(3))]
