from datetime import UTC, datetime
from typing import Any

import pytest

from commonplace_runtime.domain.bounded_fields import BoundedFields, read_moment
from commonplace_runtime.domain.cursors import write_cursor
from commonplace_runtime.domain.memories import (
    MemoryQuery,
    NewMemory,
    clean_changes,
    clean_memory,
    clean_query,
    read_changes,
    read_memory,
)
from commonplace_runtime.domain.projects import read_project
from commonplace_runtime.domain.validation import InvalidFields, Issue
from commonplace_runtime.services import memories, projects


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1.9, datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        (253_402_300_799_999, datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
        (-62_135_596_800_000, datetime(1, 1, 1, tzinfo=UTC)),
        ("2026-11-21T10:00:00+01:00", datetime(2026, 11, 21, 9, tzinfo=UTC)),
        ("2026", datetime(2026, 1, 1, tzinfo=UTC)),
        (253_402_300_800_000, None),
        (-62_135_596_800_001, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        (None, None),
        ([], None),
        ("", None),
        ("10000-01-01", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T23:59:59-01:00", None),
    ],
)
def test_a_moment_is_epoch_milliseconds_or_a_date(value: Any, moment: datetime | None) -> None:
    assert read_moment(value) == moment


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), True, "1", [], -1, 2])
def test_what_is_no_fraction_is_an_issue(value: Any) -> None:
    issues: list[Issue] = []
    assert BoundedFields({"importance": value}, issues).fraction("importance") is None
    assert [issue["path"] for issue in issues] == [["importance"]]


def test_a_body_becomes_a_memory() -> None:
    memory = read_memory({"narrative": "n", "title": "T", "filesRead": ["r"], "files_modified": ["m"], "tags": ["a "]})
    assert memory == NewMemory(
        content="n",
        title="T",
        tags=("a",),
        keywords=[],
        metadata={"title": "T", "files_read": ["r"], "files_modified": ["m"]},
    )


@pytest.mark.parametrize("body", [None, [], 1, "x"])
def test_what_is_no_object_is_one_issue(body: Any) -> None:
    for reader in (read_memory, read_changes, read_project):
        with pytest.raises(InvalidFields) as refused:
            reader(body)
        assert refused.value.issues[0]["path"] == []


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ({}, {}),
        ({"unknown": 1}, {}),
        ({"content": "c"}, {"content": "c"}),
        ({"content": None, "narrative": "n"}, {"content": "n"}),
        ({"title": None}, {"title": None, "metadata": {"title": None}}),
        ({"title": ""}, {"title": None, "metadata": {"title": None}}),
        ({"metadata": None}, {"clearMetadata": True}),
        ({"metadata": None, "type": "t"}, {"clearMetadata": True, "metadata": {"type": "t"}}),
        ({"metadata": {"a": None}}, {"metadata": {"a": None}}),
        ({"facts": None}, {"metadata": {"facts": None}}),
        ({"facts": []}, {"metadata": {"facts": None}}),
        ({"concepts": ["c"]}, {"keywords": ["c"], "metadata": {"concepts": ["c"]}}),
        ({"tags": ["a", "a"]}, {"tags": ["a"]}),
        ({"validTo": 0}, {"validTo": "1970-01-01T00:00:00+00:00"}),
        ({"validTo": None}, {"validTo": None}),
        ({"serverSessionId": None, "importance": None}, {"session": None, "importance": None}),
        ({"supersedes": None}, {}),
        ({"projectId": "p"}, {"project": "p"}),
    ],
)
def test_a_body_becomes_changes(body: Any, changes: Any) -> None:
    assert read_changes(body) == changes


def test_cleaning_leaves_no_kind_and_no_tag_blank_and_counts_what_it_took() -> None:
    token = "ghp_" + "a1B2" * 9
    memory = NewMemory(content=token, kind="<private>x</private>", tags=("<private>t</private>", "a", "a\x00"))
    clean = clean_memory(memory, "id")
    assert (clean.row["id"], clean.row["kind"], clean.row["tags"]) == ("id", "manual", ["a", "a\ufffd"])
    assert token not in str(clean.row)
    assert sum(clean.secrets.values()) == 1


def test_changes_keep_what_they_do_not_name_unnamed() -> None:
    assert clean_changes({"title": None, "clearMetadata": True}).row == {"title": None, "clearMetadata": True}


def test_filters_are_cleaned_for_the_audit_keeps_them() -> None:
    token = "ghp_" + "a1B2" * 9
    clean = clean_query(MemoryQuery(tag=token, actor="a\x00", kind="\ud800"))
    assert token not in str(clean)
    assert (clean["actor"], clean["kind"], clean["superseded"]) == ("a\ufffd", "\ufffd", None)


@pytest.mark.parametrize("number", [1, 42, 2**31 - 1])
def test_a_cursor_is_read_back(number: int) -> None:
    assert memories.read_place(write_cursor(number)) == number


@pytest.mark.parametrize("name", ["a", "Ä b/c", "x" * 200, "\U0001f600" * 100])
def test_a_project_cursor_is_read_back(name: str) -> None:
    assert projects.read_place(write_cursor(name)) == name


@pytest.mark.parametrize("cursor", ["", "=", "====", "a", "nonsense", "m1:5", "é", "\x00", "x" * 5000])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    for reader in (memories.read_place, projects.read_place):
        with pytest.raises(InvalidFields):
            reader(cursor)


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**70, "a"])
def test_a_cursor_to_no_place_is_refused(number: int | str) -> None:
    with pytest.raises(InvalidFields):
        memories.read_place(write_cursor(number))


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", 1])
def test_a_cursor_to_a_name_that_none_has_is_refused(name: str | int) -> None:
    with pytest.raises(InvalidFields):
        projects.read_place(write_cursor(name))
