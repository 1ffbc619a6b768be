import pytest

from commonplace_runtime.domain.questions import hints_of


@pytest.mark.parametrize(
    ("query", "years", "months"),
    [
        ("what did we decide in March 2025", [2025], [3]),
        ("releases of 2024 and 2025", [2024, 2025], []),
        ("what broke in may", [], [5]),
        ("May 2025", [2025], [5]),
        ("May 12, 2025", [2025], [5]),
        ("may I squash a branch", [], []),
        ("what broke on 2025-03-14", [2025], [3]),
        ("since 2025-11, may it", [2025], [11]),
        ("2024-2025 and CVE-2025-0612", [2024, 2025], []),
        ("port 20250 or 12024", [], []),
        ("marching orders, augustus", [], []),
        ("DECEMBER freeze", [], [12]),
        (None, [], []),
        ("", [], []),
    ],
)
def test_a_time_that_is_named_is_seen_and_a_verb_is_none(
    query: str | None, years: list[int], months: list[int]
) -> None:
    hints = hints_of(query)
    assert (hints.years, hints.months) == (years, months)


def test_words_are_in_lower_case_and_each_stands_once() -> None:
    assert hints_of("Lena asked lena, and Jean-Luc!").words == ["lena", "asked", "and", "jean-luc"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("Will the pilot change at noon", ["pilot", "change", "noon"]),
        ("what did Will say", ["what", "did", "will", "say"]),
        ("is a lock held by J. Doe", ["lock", "held", "j", "doe"]),
    ],
)
def test_a_common_word_is_a_name_only_where_it_is_written_like_one(query: str, words: list[str]) -> None:
    assert hints_of(query).words == words


def test_a_name_like_an_address_stays_whole() -> None:
    assert "lena@shop.example" in hints_of("what did lena@shop.example say").words


@pytest.mark.parametrize(
    ("query", "asks"),
    [
        ("lock_timeout", False),
        ("ERROR: deadlock", False),
        ("why is checkout slow", True),
        ("配送", False),
        ("配送業者のAPIはいつ停止しますか", True),
        (None, False),
    ],
)
def test_one_or_two_words_are_a_look_up_and_more_are_a_question(query: str | None, asks: bool) -> None:
    assert hints_of(query).asks is asks


def test_a_long_query_gives_a_bounded_number_of_hints() -> None:
    hints = hints_of(" ".join(f"word{n} {1900 + n % 200}" for n in range(500)))
    assert len(hints.words) == len(hints.years) == 64
