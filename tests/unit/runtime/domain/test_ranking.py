import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonplace_runtime.domain.postings import BLOCK, DOCUMENTS, IMPACT_BITS, SINGLES, Room, Waiting, merge
from commonplace_runtime.domain.ranking import MOST_POSTINGS, MOST_WORDS, TAIL, Part, Ranking, rank

LOW, HIGH = 30, 45
"""Impacts of a word in the content and in the title of a memory of middle length."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Words are numbers here."""

    number: int
    words: Mapping[int, int]
    session: int | None = None


def integers(values: Sequence[int]) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def terms(memory: Memory) -> bytes:
    return b"".join(struct.pack(">ih", word, impact) for word, impact in memory.words.items())


def waiting(memories: Sequence[Memory], words: Sequence[int]) -> list[Part]:
    heads = [(memory.number, len(memory.words), 0 if memory.session is None else memory.session) for memory in memories]
    return [
        Part("words", data=integers(words)),
        Part("tail", data=integers([number for head in heads for number in head])),
        Part("terms", data=b"".join(terms(memory) for memory in memories)),
    ]


def merged(memories: Sequence[Memory], words: Sequence[int], *, index_no: int = 1) -> tuple[list[Part], dict[int, int]]:
    """The parts of a search after a merge, and each document's number of a memory."""
    done = merge(
        [
            Waiting(
                number=memory.number,
                memory_id=str(memory.number),
                session_id=None if memory.session is None else str(memory.session),
                terms=terms(memory),
            )
            for memory in memories
        ],
        Room(next_block=0, next_single=0, sessions={}),
    )
    lists = [
        Part("list", index_no, term, data)
        for term, data in zip(done.terms, done.postings, strict=True)
        if term in words
    ]
    numbers = {docno: memory.number for docno, memory in zip(done.docnos, memories, strict=True)}
    parts = [Part("words", data=integers(words)), Part("size", index_no, len(memories)), *lists]
    return [*parts, Part("tail"), Part("terms")], numbers


def found(memories: Sequence[Memory], *words: int, asks: bool = True, most: int = 100) -> list[int]:
    """Numbers of the memories found, best first; the same where they wait and after a merge."""
    parts, numbers = merged(memories, words)
    late = rank(parts, most=most, asks=asks)
    early = rank(waiting(memories, words), most=most, asks=asks)
    assert early is not None
    assert late is not None
    assert set(early.indexes) <= {TAIL}
    # A place of a block that nothing stands in yet may be ranked: only the rows tell.
    after = [(numbers[docno], score) for docno, score in zip(late.docnos, late.scores, strict=True) if docno in numbers]
    if len(late.docnos) < most:
        assert after == list(zip(early.docnos, early.scores, strict=True))
    return early.docnos


FILLER = [Memory(number=100 + n, words={900: LOW, 901 + n: LOW}) for n in range(20)]


def test_a_rarer_word_weighs_more() -> None:
    common = [Memory(number=10 + n, words={1: LOW}) for n in range(9)]
    assert found([Memory(number=1, words={2: LOW}), *common, *FILLER], 1, 2)[0] == 1


def test_a_word_in_the_title_weighs_more() -> None:
    assert found([Memory(number=1, words={1: HIGH}), Memory(number=2, words={1: LOW}), *FILLER], 1) == [1, 2]


def test_more_of_the_words_weigh_more() -> None:
    memories = [Memory(number=1, words={1: LOW, 2: LOW}), Memory(number=2, words={1: HIGH}), *FILLER]
    assert found(memories, 1, 2)[0] == 1


TURNS = [
    Memory(number=1, words={1: LOW, 2: LOW, 3: LOW}, session=7),
    Memory(number=2, words={50: LOW}, session=7),
    Memory(number=3, words={51: LOW}, session=9),
]


def test_a_question_finds_the_turn_after_its_words() -> None:
    assert found([*TURNS, *FILLER], 1, 2, 3) == [1, 2]


def test_a_look_up_finds_only_what_has_one_of_its_words() -> None:
    assert found([*TURNS, *FILLER], 1, 2, 3, asks=False) == [1]


def test_one_word_that_is_found_makes_no_question() -> None:
    assert found([*TURNS, *FILLER], 1, 70, 71) == [1]


def test_neighbours_of_another_session_do_not_count() -> None:
    between = [
        Memory(number=1, words={1: LOW, 2: LOW, 3: LOW}, session=7),
        Memory(number=2, words={50: LOW}, session=9),
        Memory(number=3, words={51: LOW}, session=7),
    ]
    assert found(between, 1, 2, 3) == [1, 3]


def test_a_turn_beside_the_same_words_comes_before_one_that_stands_alone() -> None:
    memories = [
        Memory(number=1, words={1: LOW}, session=7),
        Memory(number=2, words={1: LOW, 2: LOW}, session=7),
        Memory(number=3, words={1: LOW}, session=9),
        *FILLER,
    ]
    assert found(memories, 1, 2) == [2, 1, 3]


def test_turns_that_fill_several_blocks_are_all_found() -> None:
    memories = [Memory(number=1 + n, words={1: LOW}, session=7) for n in range(2 * BLOCK + 3)]
    assert sorted(found(memories, 1)) == [memory.number for memory in memories]


def test_of_equals_the_newest_comes_first() -> None:
    alone = [Memory(number=1 + n, words={1: LOW}) for n in range(30)]
    assert found(alone, 1, most=10) == list(range(30, 20, -1))
    sessions = [Memory(number=1 + n, words={1: LOW}, session=1 + 2 * n) for n in range(300)]
    assert found(sessions, 1, most=5) == [300, 299, 298, 297, 296]


def test_several_indexes_rank_as_one() -> None:
    memories = [
        Memory(number=1, words={1: LOW, 2: LOW}),
        Memory(number=2, words={1: HIGH}, session=3),
        Memory(number=3, words={2: HIGH, 9: LOW}, session=3),
        *FILLER,
    ]
    of_one = found(memories, 1, 2)
    team, team_numbers = merged(memories[:1], (1, 2), index_no=1)
    own, own_numbers = merged(memories[1:], (1, 2), index_no=2)
    ranking = rank([*team, *own], most=100)
    assert ranking is not None
    numbers = {1: team_numbers, 2: own_numbers}
    named = [numbers[index].get(docno) for index, docno in zip(ranking.indexes, ranking.docnos, strict=True)]
    assert [number for number in named if number] == of_one


def test_a_word_in_several_segments_counts_once_for_its_rarity() -> None:
    first, _ = merged([Memory(number=1, words={1: LOW})], (1,))
    second = [Part("list", 1, 1, integers([(SINGLES + 1) << IMPACT_BITS | HIGH])), Part("size", 1, 1)]
    ranking = rank([*first, *second], most=10)
    assert ranking is not None
    assert ranking.docnos == [SINGLES + 1, SINGLES]


def test_what_is_gone_and_not_purged_counts_for_nothing() -> None:
    memories = [
        Memory(number=1, words={1: LOW, 2: LOW}, session=1),
        Memory(number=2, words={1: HIGH, 3: LOW}, session=1),
        Memory(number=3, words={1: LOW, 4: HIGH}),
        Memory(number=4, words={2: LOW}),
    ]
    parts, numbers = merged(memories, (1, 2, 3, 4))
    docnos = {number: docno for docno, number in numbers.items()}
    # As if these had never been: documents' numbers are not used again.
    without = [part._replace(number=2) if part.part == "size" else part for part in parts if part.part != "list"]
    for part in parts:
        if part.part == "list":
            postings = [posting for (posting,) in struct.iter_unpack(">i", part.data)]
            left = [posting for posting in postings if posting >> IMPACT_BITS not in (docnos[2], docnos[3])]
            without += [part._replace(data=integers(left))] if left else []
    ranking = rank([Part("dead", 1, 0, integers([docnos[2], docnos[3]])), *parts], most=10)
    assert ranking == rank(without, most=10)
    assert ranking is not None
    assert {numbers[docno] for docno in ranking.docnos} == {1, 4}


def test_the_commonest_words_are_left_out_first() -> None:
    rare = integers([(SINGLES + 7) << IMPACT_BITS | LOW])
    common = integers([(SINGLES + n) << IMPACT_BITS | HIGH for n in range(MOST_POSTINGS)])
    parts = [Part("words", data=integers([1, 2])), Part("size", 1, MOST_POSTINGS)]
    parts += [Part("list", 1, 2, common), Part("list", 1, 1, rare)]
    ranking = rank(
        [*parts, *waiting([Memory(number=5, words={2: HIGH}), Memory(number=6, words={1: LOW})], (1, 2))], most=10
    )
    assert ranking is not None
    assert list(zip(ranking.indexes, ranking.docnos, strict=True)) == [(TAIL, 6), (1, SINGLES + 7)]


def test_what_waits_may_have_only_words_that_are_left_out() -> None:
    rare = integers([(SINGLES + 7) << IMPACT_BITS | LOW])
    common = integers([(SINGLES + n) << IMPACT_BITS | HIGH for n in range(MOST_POSTINGS)])
    parts = [Part("size", 1, MOST_POSTINGS), Part("list", 1, 2, common), Part("list", 1, 1, rare)]
    ranking = rank([*parts, *waiting([Memory(number=5, words={2: HIGH})], (1, 2))], most=10)
    assert ranking is not None
    assert list(zip(ranking.indexes, ranking.docnos, strict=True)) == [(1, SINGLES + 7)]


def test_so_many_words_count_and_they_are_the_rarest() -> None:
    common = integers([(SINGLES + n) << IMPACT_BITS | HIGH for n in range(3)])
    rare = integers([(SINGLES + 7) << IMPACT_BITS | LOW])
    lists = [Part("list", 1, word, common if word <= MOST_WORDS else rare) for word in range(1, 2 * MOST_WORDS + 1)]
    ranking = rank([Part("size", 1, 10), *lists], most=10)
    assert ranking is not None
    assert ranking.docnos == [SINGLES + 7]


def test_one_word_is_read_however_common_it_is() -> None:
    common = integers([(SINGLES + n) << IMPACT_BITS | HIGH for n in range(MOST_POSTINGS + 1)])
    ranking = rank([Part("words", data=integers([2])), Part("list", 1, 2, common)], most=10)
    assert ranking is not None
    assert len(ranking.docnos) == 10


def test_the_best_of_very_many_sessions_is_found() -> None:
    memories = [Memory(number=1 + n, words={1: LOW, 2: 1}, session=1 + 2 * n) for n in range(3000)]
    memories[100] = Memory(number=101, words={1: LOW, 2: HIGH}, session=201)
    assert found(memories, 1, 2)[0] == 101


@pytest.mark.parametrize("words", [(), (77,)], ids=["no words", "words that nothing has"])
def test_nothing_is_found_for(words: tuple[int, ...]) -> None:
    assert found([*TURNS, *FILLER], *words) == []


def test_an_index_that_cannot_be_asked_is_said_to_be_so() -> None:
    assert rank([Part("rows")], most=10) is None


def test_an_empty_project_answers_nothing() -> None:
    assert rank([Part("words"), Part("tail"), Part("terms")], most=10) == Ranking()


numbers = st.integers(1, 2**31 - 1)
impacts = st.integers(1, 63)
words = st.integers(-(2**31), 2**31 - 1)
docnos = st.one_of(st.integers(0, 200), st.integers(0, DOCUMENTS - 1), st.integers(SINGLES, SINGLES + 200))
lists = st.dictionaries(
    st.tuples(st.integers(1, 3), words), st.dictionaries(docnos, impacts, min_size=1, max_size=20), max_size=8
)
tails = st.lists(
    st.tuples(st.one_of(st.just(0), st.integers(-3, 3).map(lambda n: 2 * n + 1)), st.dictionaries(words, impacts)),
    max_size=40,
)


@settings(deadline=None)
@given(lists=lists, tail=tails, others=st.sets(words), most=st.integers(1, 500), asks=st.booleans())
def test_whatever_stands_in_the_parts_only_it_and_its_neighbours_are_found(
    lists: dict[tuple[int, int], dict[int, int]],
    tail: list[tuple[int, dict[int, int]]],
    others: set[int],
    most: int,
    asks: bool,
) -> None:
    memories = [Memory(number=1 + n, words=own, session=session or None) for n, (session, own) in enumerate(tail)]
    asked = [*others, *(word for _, word in lists)]
    parts = [
        *waiting(memories, asked),
        *(
            Part("list", index, word, integers([docno << IMPACT_BITS | impact for docno, impact in postings.items()]))
            for (index, word), postings in lists.items()
        ),
        *(Part("size", index, len(postings)) for (index, _), postings in lists.items()),
    ]
    ranking = rank(parts, most=most, asks=asks)
    assert ranking is not None
    near = {
        (index, docno + step)
        for (index, _), postings in lists.items()
        for docno in postings
        for step in (range(-2, 4) if docno < SINGLES else (0,))
        if (docno + step) // BLOCK == docno // BLOCK
    }
    assert len(ranking.docnos) == len(set(zip(ranking.indexes, ranking.docnos, strict=True))) <= most
    assert ranking.scores == sorted(ranking.scores, reverse=True)
    assert all(score > 0 for score in ranking.scores)
    waits = {memory.number for memory in memories}
    for index, docno in zip(ranking.indexes, ranking.docnos, strict=True):
        assert docno in waits if index == TAIL else (index, docno) in near
