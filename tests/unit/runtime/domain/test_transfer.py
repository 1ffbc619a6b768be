"""The lines of an export, split and named."""

import pytest

from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.domain.transfer import MAX_LINE_BYTES, Lines, Place, read_cursor, read_line

BODY = b'{"a": 1}\n\n \r\n{"b": "\xc3\xa9"}\r\n\n\n{"c": 3}'


@pytest.mark.parametrize("size", range(1, len(BODY) + 1))
def test_lines_are_the_same_wherever_the_stream_is_cut(size: int) -> None:
    lines = Lines()
    found = [line for start in range(0, len(BODY), size) for line in lines.feed(BODY[start : start + size])] + list(
        lines.finish()
    )
    assert found == [(1, b'{"a": 1}'), (4, b'{"b": "\xc3\xa9"}'), (7, b'{"c": 3}')]


def test_a_line_that_is_too_long_is_thrown_away_as_it_comes_and_the_next_is_whole() -> None:
    lines = Lines()
    chunk = b"x" * 2**20
    assert [line for _ in range(12) for line in lines.feed(chunk)] == []
    assert lines.skipped_bytes == 12 * 2**20 > MAX_LINE_BYTES
    assert len(lines._rest) == 0
    assert list(lines.feed(b"\n{}\n")) == [(1, None), (2, b"{}")]
    assert lines.skipped_bytes == 0


@pytest.mark.parametrize(
    "place",
    [
        Place(project_id="0198c5f0-7e3a-7c41-9d0a-2f6b8f1c4e55", kind="memories", after="42"),
        Place(project_id="0198c5f0-7e3a-7c41-9d0a-2f6b8f1c4e55", kind="events"),
        Place(
            project_id="0198c5f0-7e3a-7c41-9d0a-2f6b8f1c4e55",
            kind="sessions",
            after="0198c5f0-7e3a-7c41-9d0a-2f6b8f1c4e56",
        ),
    ],
)
def test_a_cursor_names_its_place(place: Place) -> None:
    assert read_cursor(place.cursor) == place


@pytest.mark.parametrize(
    "place",
    [
        Place(project_id="x" * 36, kind="memories", after="-1"),
        Place(project_id="x" * 36, kind="memories", after="1" * 30),
        Place(project_id="x" * 36, kind="sessions", after="1"),
        Place(project_id="x" * 36, kind="sessions", after="-" * 36),
        Place(project_id="x" * 36, kind="sessions", after="0" * 36),
        Place(project_id="x", kind="memories"),
    ],
)
def test_a_cursor_that_was_made_up_is_refused(place: Place) -> None:
    with pytest.raises(InvalidInput):
        read_cursor(place.cursor)


def test_the_same_line_without_an_id_is_the_same_memory() -> None:
    first, again, other = (read_line(n, raw) for n, raw in ((1, _line("a")), (2, _line("a")), (3, _line("b"))))
    assert first.record is not None
    assert again.record is not None
    assert other.record is not None
    assert first.record["id"] == again.record["id"] != other.record["id"]


def _line(content: str) -> bytes:
    return b'{"type":"memory","content":"%s"}' % content.encode()
