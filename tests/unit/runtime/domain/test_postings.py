"""A tail becomes a segment that says exactly what the tail said, and numbers are dealt once."""

from collections import Counter
from itertools import pairwise
from struct import pack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain.postings import (
    BLOCK,
    COMPACTED,
    DOCUMENTS,
    SINGLES,
    IndexFull,
    Place,
    Room,
    Waiting,
    merge,
    place,
    to_compact,
    unpack_postings,
    without,
)

EMPTY = Room(next_block=0, next_single=0, sessions={})
TERMS = st.integers(-(2**31), 2**31 - 1)
MEMORIES = st.lists(
    st.tuples(
        st.sampled_from([None, "s", "t", "u"]),
        st.dictionaries(TERMS | st.integers(0, 5), st.integers(1, 63), max_size=8),
    ),
    min_size=1,
    max_size=120,
)


def tail_of(memories: list[tuple[str | None, dict[int, int]]], *, first: int = 0) -> list[Waiting]:
    return [
        Waiting(
            number=first + number,
            memory_id=str(first + number),
            session_id=session,
            terms=b"".join(pack(">ih", term, impact) for term, impact in words.items()),
        )
        for number, (session, words) in enumerate(memories)
    ]


@given(MEMORIES)
def test_a_segment_says_what_its_tail_said(memories: list[tuple[str | None, dict[int, int]]]) -> None:
    merged = merge(tail_of(memories), EMPTY)
    assert merged.terms == sorted(set(merged.terms))
    said = Counter(
        (int(docno), term, int(impact))
        for term, data in zip(merged.terms, merged.postings, strict=True)
        for docno, impact in zip(*unpack_postings([data]), strict=True)
    )
    assert said == Counter(
        (docno, term, impact)
        for docno, (_, words) in zip(merged.docnos, memories, strict=True)
        for term, impact in words.items()
    )


@given(st.lists(MEMORIES, min_size=1, max_size=4))
def test_a_session_has_whole_blocks_and_no_number_comes_twice(
    tails: list[list[tuple[str | None, dict[int, int]]]],
) -> None:
    room = EMPTY
    given_away: set[int] = set()
    owner: dict[int, str] = {}
    for memories in tails:
        docnos, room = place(tail_of(memories, first=len(given_away)), room)
        for docno, (session, _) in zip(docnos, memories, strict=True):
            assert docno not in given_away
            given_away.add(docno)
            assert (session is None) == (docno >= SINGLES)
            if session is not None:
                assert owner.setdefault(docno // BLOCK, session) == session
                assert docno // BLOCK < room.next_block
    for session in {session for memories in tails for session, _ in memories if session is not None}:
        told = sum(each == session for memories in tails for each, _ in memories)
        assert sum(one == session for one in owner.values()) == -(-told // BLOCK), "no more blocks than it needs"


def test_a_session_goes_on_where_it_was() -> None:
    room = Room(next_block=7, next_single=0, sessions={"s": Place(block=3, used=31)})
    docnos, left = place(tail_of([("s", {}), ("s", {}), ("t", {}), ("s", {})]), room)
    assert docnos == [3 * BLOCK + 31, 7 * BLOCK, 8 * BLOCK, 7 * BLOCK + 1]
    assert left.sessions == {"s": Place(block=7, used=2), "t": Place(block=8, used=1)}


@pytest.mark.parametrize(
    ("room", "session"),
    [
        (Room(next_block=SINGLES // BLOCK, next_single=0, sessions={}), "s"),
        (Room(next_block=0, next_single=DOCUMENTS - SINGLES, sessions={}), None),
    ],
    ids=["blocks", "singles"],
)
def test_a_full_index_says_so(room: Room, session: str | None) -> None:
    with pytest.raises(IndexFull):
        merge(tail_of([(session, {1: 1})]), room)


def test_the_last_numbers_are_dealt_too() -> None:
    room = Room(next_block=SINGLES // BLOCK - 1, next_single=DOCUMENTS - SINGLES - 1, sessions={})
    memories: list[tuple[str | None, dict[int, int]]] = [("s", {-1: 63}), (None, {-1: 63})]
    merged = merge(tail_of(memories), room)
    assert merged.docnos == [SINGLES - BLOCK, DOCUMENTS - 1]
    docnos, impacts = unpack_postings(merged.postings)
    assert docnos.tolist() == merged.docnos
    assert impacts.tolist() == [63, 63]


@given(st.lists(st.lists(st.integers(0, 50), unique=True), max_size=5), st.sets(st.integers(0, 50), min_size=1))
def test_only_the_dead_leave_a_list(lists: list[list[int]], dead: set[int]) -> None:
    packed = [b"".join(pack(">i", docno << 6 | 9) for docno in documents) for documents in lists]
    for left, documents in zip(without(packed, np.array(sorted(dead), np.int64)), lists, strict=True):
        docnos, impacts = unpack_postings([left])
        assert docnos.tolist() == [docno for docno in documents if docno not in dead]
        assert set(impacts.tolist()) <= {9}


@given(st.lists(st.booleans(), max_size=400))
def test_levels_only_fall_and_no_level_has_many(does_compact: list[bool]) -> None:
    """Whoever merges may be faster than whoever puts together; what is put together stands side by side."""
    segments: list[tuple[int, int]] = []
    for number, compacts in enumerate(does_compact, start=1):
        segments.append((number, 0))
        while compacts and (span := to_compact(segments)) is not None:
            first, last = span
            inside = [level for segment, level in segments if first <= segment <= last]
            assert inside == [inside[0]] * COMPACTED
            segments = [
                (segment, level + (segment == first)) for segment, level in segments if not first < segment <= last
            ]
        assert all(before[1] >= after[1] for before, after in pairwise(segments))
        if compacts:
            assert max(Counter(level for _, level in segments).values()) < COMPACTED
