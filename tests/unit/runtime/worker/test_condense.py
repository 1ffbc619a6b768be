"""What is worth a call: noise goes, repetition stands once, and what somebody may ask for stays."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain.condense import MAX_RUN, Condensed, condense
from commonplace_runtime.domain.observations import SourceEvent


def event(payload: object, event_type: str = "tool_use") -> SourceEvent:
    return SourceEvent(
        event_type=event_type,
        source_adapter="hook",
        platform_source="claude",
        occurred_at=datetime(2026, 11, 21, 8, tzinfo=UTC),
        payload=payload,
    )


def tool(name: str, given_input: Mapping[str, Any], response: object) -> SourceEvent:
    return event({"tool_name": name, "tool_input": given_input, "tool_response": response, "cwd": "/shop"})


def ran(command: str, output: str, code: int = 0) -> SourceEvent:
    return tool("Bash", {"command": command}, {"stdout": output, "stderr": "", "exitCode": code})


def read(path: str, content: str) -> SourceEvent:
    return tool("Read", {"file_path": path}, {"type": "text", "file": {"filePath": path, "content": content}})


def edit(path: str, old: str, new: str) -> SourceEvent:
    return tool("Edit", {"file_path": path, "old_string": old, "new_string": new}, {"filePath": path})


def prompt(text: str) -> SourceEvent:
    return event({"prompt": text, "cwd": "/shop", "platformSource": "claude"}, "user_prompt")


FAILED = "FAILED tests/test_cart.py::test_total - AssertionError: 3 != 4\n1 failed, 11 passed in 2.31s"
PASSED = "12 passed in 2.02s"


def shown(condensed: Condensed) -> Sequence[tuple[int, ...]]:
    return [kept.places for kept in condensed.kept]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (tool("TodoWrite", {"todos": [{"content": "a"}]}, {"newTodos": []}), "books"),
        (tool("Skill", {"command": "pdf"}, {"success": True}), "books"),
        (tool("SlashCommand", {"command": "/clear"}, "done"), "books"),
        (tool("ListMcpResourcesTool", {}, [{"text": "docs"}]), "books"),
        (tool("Glob", {"pattern": "*.py"}, {"filenames": ["a.py"]}), "books"),
        (tool("LS", {"path": "/shop"}, "- a.py"), "books"),
        (tool("Grep", {"pattern": "x"}, {"mode": "files_with_matches", "filenames": ["a.py"]}), "list of files"),
        (tool("Grep", {"pattern": "x"}, "No matches found"), "empty"),
        (tool("WebSearch", {"query": "x"}, ""), "empty"),
        (tool("mcp__docs__get-page", {"page": "limits"}, "no results"), "empty"),
        (tool("mcp__linear__list_issues", {"team": "shop"}, []), "empty"),
        (read("/shop/empty.py", ""), "empty"),
        (ran("ls -la", "total 4"), "routine"),
        (ran("cd /shop && git status", "clean"), "routine"),
        (ran("pwd", "/shop"), "routine"),
        (ran("git status && git diff | head -40", "-limit = 7"), "routine"),
        (ran("ls -la app | grep py; find . -name '*.py' | sort | head", "a.py"), "routine"),
        (ran("python check.py", ""), "routine"),
        (tool("BashOutput", {"bash_id": "1"}, {"stdout": "compiling …", "exitCode": None}), "running"),
        (tool("AskUserQuestion", {"questions": [{"question": "Which?"}]}, {"answers": {}}), "answer"),
        (event({"prompt": "", "cwd": "/shop", "platformSource": "claude"}, "user_prompt"), "nothing left"),
        (event({}), "nothing left"),
        (event("  "), "nothing left"),
        (event({"tool_name": "Note", "tool_input": {"text": ""}, "tool_response": None}), "nothing left"),
    ],
)
def test_what_nobody_will_ask_for_is_not_sent(source: SourceEvent, reason: str) -> None:
    condensed = condense([source], ())

    assert condensed.kept == []
    assert reason in condensed.dropped[0]


@pytest.mark.parametrize(
    "source",
    [
        prompt("yes"),
        event({"last_assistant_message": "Done."}, "assistant_message"),
        event({"service": "billing", "healthy": False}, "probe"),
        event({"a": {"b": {"c": "deep words"}}}, "custom"),
        event("ok", "note"),
        event([3], "reading"),
        edit("/shop/a.py", "1", "2"),
        tool("Write", {"file_path": "/shop/a.py", "content": "x"}, None),
        tool("mcp__slack__post_message", {"text": "shipped"}, None),
        tool("mcp__db__query", {"sql": "update orders set paid = true"}, []),
        ran("git status", "fatal: not a git repository", 128),
        ran("git commit -qm 'raise the limit'", ""),
        ran("echo FLAG=1 >> .env", ""),
        ran("sed -i s/7/12/ retry.py", ""),
        ran("find . -name '*.orig' -delete", ""),
        ran("git status && git push", "main -> main"),
        ran("find . -name '*.py' | xargs grep limit", "a.py: limit = 7"),
        ran("cat notes.txt | head", "port 5433"),
        ran("cat .python-version", "3.12"),
        ran("pytest -q", PASSED),
        tool("Grep", {"pattern": "x"}, {"filenames": ["a.py"], "content": "a.py:1:x = 5433"}),
        tool("Glob", {"pattern": "*"}, {"is_error": True, "content": "permission denied"}),
        tool("BashOutput", {"bash_id": "1"}, {"stdout": FAILED}),
        tool("BashOutput", {"bash_id": "1"}, {"stdout": PASSED}),
        tool("AskUserQuestion", {"questions": []}, {"answers": {"Which store?": "Valkey"}}),
        tool("ExitPlanMode", {"plan": "1. Move sessions to Postgres"}, {}),
        tool("WebFetch", {"url": "https://valkey.io"}, {"result": "noeviction is the default"}),
    ],
)
def test_what_somebody_may_ask_for_is_sent(source: SourceEvent) -> None:
    # Also where the session told the same before, unless it only looked.
    assert shown(condense([source], ())) == [(0,)]


def test_an_unchanged_file_is_sent_once() -> None:
    condensed = condense([read("/shop/a.py", "x = 1"), prompt("go on"), read("/shop/a.py", "x = 1")], ())
    later = condense([read("/shop/a.py", "x = 1"), read("/shop/a.py", "x = 2")], condensed.digests)

    assert shown(condensed) == [(0, 2), (1,)]
    assert (shown(later), later.dropped) == ([(1,)], {0: "seen before"})


def test_a_file_is_known_as_its_edits_left_it() -> None:
    batch = [
        read("/shop/a.py", "x = 1\ny = 1"),
        edit("/shop/a.py", "x = 1", "x = 2"),
        read("/shop/a.py", "x = 2\ny = 1"),
    ]
    condensed = condense(batch, ())
    original = tool(
        "Edit",
        {"file_path": "/shop/a.py", "old_string": "y = 1", "new_string": "y = 3"},
        {"filePath": "/shop/a.py", "originalFile": "x = 2\ny = 1"},
    )
    later = condense([original, read("/shop/a.py", "x = 2\ny = 3"), read("/shop/a.py", "x = 9")], condensed.digests)

    assert (shown(condensed), condensed.dropped) == ([(0,), (1,)], {2: "seen before"})
    assert (shown(later), later.dropped) == ([(0,), (2,)], {1: "seen before"})


def test_an_edit_makes_no_file_known_that_was_never_shown_whole() -> None:
    part = tool(
        "Read",
        {"file_path": "/shop/a.py", "offset": 10, "limit": 1},
        {"file": {"filePath": "/shop/a.py", "content": "x = 1", "numLines": 1, "totalLines": 90}},
    )
    original = tool(
        "Edit",
        {"file_path": "/shop/a.py", "old_string": "1", "new_string": "2"},
        {"filePath": "/shop/a.py", "originalFile": "x = 1"},
    )
    condensed = condense([part, original, read("/shop/a.py", "x = 2")], ())
    assert shown(condensed) == [(0,), (1,), (2,)]


def test_tests_that_pass_as_before_are_seen_before() -> None:
    known = condense([ran("pytest -q", PASSED)], ()).digests

    assert condense([ran("pytest -q", "13 passed in 9.99s")], known).dropped == {0: "seen before"}
    assert shown(condense([ran("pytest -q tests/a", PASSED)], known)) == [(0,)]


@pytest.mark.parametrize("passes", [ran("pytest -q", PASSED), ran("ruff check app", "All checks passed!")])
def test_what_works_again_is_told_though_it_worked_before(passes: SourceEvent) -> None:
    payload: Any = passes.payload
    failure = ran(payload["tool_input"]["command"], FAILED, 1)
    known = condense([passes, failure], ()).digests
    again = condense([passes], known)

    assert shown(again) == [(0,)]
    assert shown(condense([passes], [*known, *again.digests])) == []


def test_lines_of_a_file_that_was_just_told_are_seen_before() -> None:
    part = tool(
        "Read",
        {"file_path": "/shop/a.py", "offset": 2, "limit": 1},
        {"file": {"filePath": "/shop/a.py", "content": "y = 1", "numLines": 1, "totalLines": 3}},
    )
    whole = read("/shop/a.py", "x = 1\ny = 1\nz = 1")

    assert condense([whole, part], ()).dropped == {1: "seen before"}
    assert shown(condense([part, whole], ())) == [(0,), (1,)]


@pytest.mark.parametrize(
    "source",
    [
        prompt("yes"),
        edit("/shop/a.py", "1", "2"),
        ran("pytest -q", FAILED, 1),
        ran("helm upgrade shop chart", "upgraded"),
        event({"amount": 3}, "order"),
    ],
)
def test_words_changes_and_failures_are_told_again(source: SourceEvent) -> None:
    condensed = condense([source], ())
    assert shown(condense([source], condensed.digests)) == [(0,)]


def test_words_and_changes_fold_into_their_neighbour_only() -> None:
    forth, back = edit("/shop/a.py", "1", "2"), edit("/shop/a.py", "2", "1")
    condensed = condense([forth, forth, back, forth, prompt("yes"), prompt("yes"), back, prompt("yes")], ())

    assert shown(condensed) == [(0, 1), (2,), (3,), (4, 5), (6,), (7,)]


def test_runs_that_end_alike_stand_for_each_other() -> None:
    events = [
        ran("pytest -q", PASSED),
        ran("pytest -q", "13 passed in 9.99s"),
        ran("pytest -q tests/test_cart.py", PASSED),
        ran("pytest -q", FAILED, 1),
        ran("pytest -q", FAILED.replace("2.31s", "9.80s"), 1),
        ran("pytest -q", FAILED.replace("3 != 4", "5 != 4"), 1),
        ran("pytest -q", PASSED),
        ran("pytest -q", PASSED),
    ]
    assert shown(condense(events, ())) == [(0, 1), (2,), (3, 4), (5,), (6, 7)]


def test_what_is_seen_again_is_remembered_as_newest() -> None:
    first = condense([read("/shop/a.py", "x"), read("/shop/b.py", "y")], ()).digests
    assert condense([read("/shop/a.py", "x")], first).digests == first[:1]


LOOKS = [
    read("/shop/a.py", "a = 1"),
    tool("Grep", {"pattern": "retry"}, {"mode": "content", "filenames": ["a.py"], "content": "a.py:3:retry = 7"}),
    tool("WebFetch", {"url": "https://valkey.io"}, {"result": "noeviction is the default"}),
    tool("mcp__github__get_issue", {"number": 7}, {"title": "orders are sent twice"}),
    ran("cat .python-version", "3.12"),
]


def runs(*events: SourceEvent) -> Sequence[tuple[int, ...]]:
    return shown(condense(events, (), fold_runs=True))


def test_a_run_of_looks_is_one_event_that_shows_each_of_them() -> None:
    todo = tool("TodoWrite", {"todos": []}, {"newTodos": []})
    [kept] = condense([*LOOKS[:2], todo, *LOOKS[2:], LOOKS[0]], (), fold_runs=True).kept

    assert kept.places == (0, 1, 3, 4, 5, 6)
    assert list(kept.event.parts) == LOOKS
    assert kept.event.payload == LOOKS[0].payload


def test_a_look_by_itself_stays_as_it_is() -> None:
    [kept] = condense([LOOKS[0], LOOKS[0]], (), fold_runs=True).kept
    assert kept.event is LOOKS[0]


@pytest.mark.parametrize(
    "turn",
    [
        prompt("look at the cart instead"),
        event({"last_assistant_message": "The limit is 7."}, "assistant_message"),
        ran("pytest -q", FAILED, 1),
        ran("git commit -qm 'raise the limit'", "1 file changed"),
        tool("Read", {"file_path": "/shop/b.py"}, {"is_error": True, "content": "no such file"}),
        tool("Task", {"prompt": "look around"}, {"content": [{"type": "text", "text": "The cart is slow."}]}),
        tool("AskUserQuestion", {"questions": []}, {"answers": {"Which store?": "Valkey"}}),
        tool("mcp__get__update_list", {"id": 3}, "renamed"),
        tool("mcp__db__query", {"sql": "UPDATE orders SET paid = true"}, [{"id": 3}]),
    ],
)
def test_no_run_goes_past_a_turning_point(turn: SourceEvent) -> None:
    assert runs(LOOKS[0], LOOKS[1], turn, LOOKS[2], LOOKS[3]) == [(0, 1), (2,), (3, 4)]


@pytest.mark.parametrize(
    "command",
    [
        "kubectl -n staging logs deploy/shop --tail=400",
        "cd chart && kubectl --context=prod get pods -A | grep shop",
        "docker compose -f docker-compose.yml logs api 2>&1 | tail",
        "helm list -n shop",
        "psql shop -c 'select state, count(*) from jobs group by 1'",
    ],
)
def test_to_ask_how_things_stand_is_a_look(command: str) -> None:
    assert runs(LOOKS[0], ran(command, "shop-7 is ready"), LOOKS[1]) == [(0, 1, 2)]


@pytest.mark.parametrize(
    "command",
    [
        "kubectl apply -f shop.yaml",
        "kubectl -n get delete pod shop-7",
        "kubectl -q delete logs shop",
        "kubectl get pods && kubectl delete pod shop-7",
        "kubectl get pods\nkubectl delete pod shop-7",
        "kubectl get pods & kubectl delete pod shop-7",
        "kubectl get pods | xargs kubectl delete",
        "kubectl get $(kubectl delete pod shop-7 -o name)",
        "kubectl logs shop-7 > shop.log",
        "docker compose up -d",
        "docker exec shop ls",
        "psql -c 'update jobs set state = 3'",
        "psql -c 'select 1; delete from jobs'",
        "psql -c 'select 1' -c 'drop table jobs'",
        "psql -c 'select pg_terminate_backend(7)'",
        "psql -c 'select * into old from jobs'",
        "psql -c 'select * from jobs for update'",
    ],
)
def test_to_change_how_things_stand_is_a_turning_point(command: str) -> None:
    assert runs(LOOKS[0], ran(command, "shop-7 is gone"), LOOKS[1]) == [(0,), (1,), (2,)]


def test_a_failure_that_is_told_with_its_equal_is_a_turning_point_where_it_stands() -> None:
    failure = ran("pytest -q", FAILED, 1)
    assert runs(failure, LOOKS[0], LOOKS[1], failure, LOOKS[2], LOOKS[3]) == [(0, 3), (1, 2), (4, 5)]


def test_that_a_command_works_again_is_told_by_itself() -> None:
    failure, passes = ran("pytest -q", FAILED, 1), ran("pytest -q", PASSED)
    known = condense([failure], ()).digests

    assert runs(failure, LOOKS[0], passes, LOOKS[1]) == [(0,), (1,), (2,), (3,)]
    assert shown(condense([LOOKS[0], passes, LOOKS[1]], known, fold_runs=True)) == [(0,), (1,), (2,)]
    assert runs(LOOKS[0], passes, LOOKS[1]) == [(0, 1, 2)]


def test_a_run_shows_no_more_than_a_citation_can_bear() -> None:
    many = [read(f"/shop/{number}.py", f"x = {number}") for number in range(MAX_RUN + 2)]
    assert runs(*many) == [tuple(range(MAX_RUN)), (MAX_RUN, MAX_RUN + 1)]


def test_changes_of_files_and_the_looks_between_them_are_one_event() -> None:
    first, second, other = edit("/shop/a.py", "1", "2"), edit("/shop/a.py", "3", "4"), edit("/shop/b.py", "1", "2")
    condensed = condense([first, LOOKS[0], second, other, prompt("go on"), second], (), fold_runs=True)

    assert shown(condensed) == [(0, 1, 2, 3), (4,), (5,)]
    assert list(condensed.kept[0].event.parts) == [first, LOOKS[0], second, other]


def test_runs_stay_apart_unless_they_are_asked_for_as_one() -> None:
    assert shown(condense([*LOOKS, edit("/shop/a.py", "1", "2"), edit("/shop/a.py", "3", "4")], ())) == [
        (place,) for place in range(len(LOOKS) + 2)
    ]


def test_what_a_run_showed_is_known_later() -> None:
    condensed = condense(LOOKS, (), fold_runs=True)
    assert set(condense(LOOKS, condensed.digests).dropped) == set(range(len(LOOKS)))


@given(
    st.lists(
        st.builds(
            tool,
            st.sampled_from(["Read", "Bash", "Edit", "Grep", "LS", "mcp__x__get", "BashOutput", ""]),
            st.dictionaries(st.sampled_from(["file_path", "command", "old_string"]), st.sampled_from(["a", "ls", ""])),
            st.recursive(
                st.sampled_from([None, "", "x", FAILED, PASSED, 3]),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["stdout", "file", "content"]), inner, max_size=3)
                ),
                max_leaves=5,
            ),
        )
        | st.builds(event, st.sampled_from(["", "yes", {}, {"prompt": "yes"}, None])),
        max_size=12,
    ),
    st.booleans(),
)
def test_every_place_is_either_dropped_or_stood_for_once(events: Sequence[SourceEvent], fold_runs: bool) -> None:
    condensed = condense(events, (), fold_runs=fold_runs)

    places = [place for kept in condensed.kept for place in kept.places]
    assert sorted([*places, *condensed.dropped]) == list(range(len(events)))
    firsts = [(kept.event.parts or [kept.event])[0] for kept in condensed.kept]
    assert all(first is events[kept.places[0]] for first, kept in zip(firsts, condensed.kept, strict=True))
    assert all(list(kept.places) == sorted(kept.places) for kept in condensed.kept)
    assert [kept.places[0] for kept in condensed.kept] == sorted(kept.places[0] for kept in condensed.kept)


def test_edits_that_make_too_much_of_a_file_are_not_followed() -> None:
    def multiplied(times: int) -> Condensed:
        one = {"old_string": "a", "new_string": "a" * 300, "replace_all": True}
        edits = tool("MultiEdit", {"file_path": "/a", "edits": [one] * times}, {"success": True})
        return condense([tool("Write", {"file_path": "/a", "content": "aaaa"}, {}), edits], ())

    assert set(multiplied(2).remembered) == {0, 1}
    assert set(multiplied(3).remembered) == {0}


def test_depth_and_foreign_values_are_kept() -> None:
    deep: object = "x"
    for _ in range(3000):
        deep = [deep]
    assert shown(condense([tool("Task", {"prompt": "p"}, deep), event(deep)], ())) == [(0,), (1,)]
