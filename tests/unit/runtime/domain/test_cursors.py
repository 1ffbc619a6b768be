import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain.cursors import read_cursor, write_cursor
from commonplace_runtime.domain.validation import InvalidFields


@given(st.text(max_size=20), st.integers(0, 2**63 - 1))
def test_a_cursor_leads_back_to_its_place(text: str, number: int) -> None:
    cursor = write_cursor(text, number)
    assert cursor.isascii()
    assert read_cursor(cursor, (str, int)) == [text, number]


@given(st.text(max_size=40))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidFields):
        read_cursor(text + "!", (str, int))


@pytest.mark.parametrize("place", [("a",), ("a", "b"), (1, "a"), ("a", True), ("a", 1, 2)])
def test_a_place_of_another_list_is_refused(place: tuple[str | int, ...]) -> None:
    with pytest.raises(InvalidFields):
        read_cursor(write_cursor(*place), (str, int))
