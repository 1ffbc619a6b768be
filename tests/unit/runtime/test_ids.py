import time
from uuid import UUID

import pytest

from commonplace_runtime.ids import uuid7, uuid7_texts

MOMENT = 1_800_000_000_123_456_789


def milliseconds(value: object) -> int:
    return int(str(value).replace("-", "")[:12], 16)


def test_ids_ascend_however_many_are_made_at_once() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}


def test_ids_as_text_are_the_same_ids() -> None:
    made = [UUID(text) for text in (str(uuid7()), *uuid7_texts(20_000), str(uuid7()))]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}


def test_an_id_begins_with_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: MOMENT)
    assert milliseconds(uuid7()) == MOMENT // 1_000_000


@pytest.mark.parametrize(("set_back_ms", "ascends"), [(0, True), (900, True), (5_000, False)])
def test_a_clock_that_is_set_back_is_followed_from_a_second_on(
    monkeypatch: pytest.MonkeyPatch, set_back_ms: int, ascends: bool
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: MOMENT)
    before = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: MOMENT - set_back_ms * 1_000_000)
    assert (uuid7() > before) == ascends
