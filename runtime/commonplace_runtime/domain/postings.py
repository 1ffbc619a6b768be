"""
The search index's formats: what Postgres keeps of a word, of a memory that waits, and where a memory stands.

A document's number is `block * 32 + place`. A session owns whole blocks, so that a number alone tells neighbouring
turns; a memory without a session is a document by itself, `SINGLES` and above. `search_terms` of
`0016_search_index.sql` packs what waits in the tail.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]

BLOCK: Final = 32
"""Places of a block."""
SINGLES: Final = 2**24
"""The first number of a memory without a session; smaller ones stand in blocks."""
DOCUMENTS: Final = 2**25
"""Numbers there are, of both kinds together: a posting is an int4."""
IMPACT_BITS: Final = 6

_POSTING: Final = np.dtype(">i4")
_TERM: Final = np.dtype([("term", ">i4"), ("impact", ">i2")])


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A memory of the tail. terms: as `search_terms` packs them."""

    number: int
    memory_id: str
    session_id: str | None
    terms: bytes


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a session's next memory goes: place `used` of `block`, or of a new block when it is full."""

    block: int
    used: int


@dataclass(frozen=True, kw_only=True)
class Room:
    """What an index has given away: the next free block, the next free single document, each session's place."""

    next_block: int
    next_single: int
    sessions: Mapping[str, Place]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """
    A tail as a segment.

    docnos: in the order of the tail. terms, postings: the words in ascending order and their postings, packed.
    """

    docnos: list[int]
    room: Room
    terms: list[int]
    postings: list[bytes]


COMPACTED: Final = 8
"""Segments of a level that become one of the next."""


def to_compact(segments: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """
    The first and the last of the segments that are to become one, of (segment, level) in ascending order.

    Merges put segments of level 0 at the end, and the first of those put together stays: levels only fall from the
    first to the last, so that nothing else stands between these two.
    """
    for level in sorted({level for _, level in segments}):
        alike = [segment for segment, its_level in segments if its_level == level]
        if len(alike) >= COMPACTED:
            return alike[0], alike[COMPACTED - 1]
    return None


class IndexFull(Exception):
    """No document's number is left."""


def merge(tail: Sequence[Waiting], room: Room) -> Merged:
    """Give each memory of `tail` its number and turn its words round. Raises IndexFull."""
    docnos, left = place(tail, room)
    terms = [np.frombuffer(waiting.terms, _TERM) for waiting in tail]
    words = np.concatenate([each["term"] for each in terms]).astype(np.int64)
    impacts = np.concatenate([each["impact"] for each in terms]).astype(np.int64)
    numbers = np.repeat(np.array(docnos, np.int64), [len(each) for each in terms])
    order = np.lexsort((numbers, words))
    words, packed = words[order], (numbers[order] << IMPACT_BITS | impacts[order]).astype(_POSTING)
    bounds = np.flatnonzero(np.r_[True, words[1:] != words[:-1], True]) if len(words) else np.zeros(1, np.int64)
    return Merged(
        docnos=docnos,
        room=left,
        terms=words[bounds[:-1]].tolist(),
        postings=[packed[start:end].tobytes() for start, end in pairwise(bounds)],
    )


def place(tail: Sequence[Waiting], room: Room) -> tuple[list[int], Room]:
    """The number of each memory, and what is left. Raises IndexFull."""
    next_block, next_single, sessions = room.next_block, room.next_single, dict(room.sessions)
    docnos = []
    for waiting in tail:
        if waiting.session_id is None:
            docnos.append(SINGLES + next_single)
            next_single += 1
            continue
        here = sessions.get(waiting.session_id)
        if here is None or here.used == BLOCK:
            here = Place(block=next_block, used=0)
            next_block += 1
        docnos.append(here.block * BLOCK + here.used)
        sessions[waiting.session_id] = Place(block=here.block, used=here.used + 1)
    if next_block * BLOCK > SINGLES or SINGLES + next_single > DOCUMENTS:
        raise IndexFull
    return docnos, Room(next_block=next_block, next_single=next_single, sessions=sessions)


def without(lists: Sequence[bytes], dead: Ints) -> list[bytes]:
    """Lists of postings without those of the documents `dead`, which ascend and are one at least."""
    postings = np.frombuffer(b"".join(lists), _POSTING)
    documents = postings >> IMPACT_BITS
    # Not np.isin, which goes through all of `dead` each time.
    lives = dead[np.minimum(np.searchsorted(dead, documents), len(dead) - 1)] != documents
    bounds = np.cumsum([0, *(len(data) // _POSTING.itemsize for data in lists)])
    left = postings[lives].tobytes()
    kept = np.r_[0, np.cumsum(lives)][bounds] * _POSTING.itemsize
    return [left[start:end] for start, end in pairwise(kept)]


def unpack_postings(data: Iterable[bytes]) -> tuple[Ints, Ints]:
    """Documents' numbers and impacts of lists, one after the other."""
    postings = np.frombuffer(b"".join(data), _POSTING).astype(np.int64)
    return postings >> IMPACT_BITS, postings & (2**IMPACT_BITS - 1)


def unpack_terms(data: bytes) -> tuple[Ints, Ints]:
    """Words and impacts of memories of the tail, one after the other."""
    terms = np.frombuffer(data, _TERM)
    return terms["term"].astype(np.int64), terms["impact"].astype(np.int64)


def unpack_numbers(data: bytes) -> Ints:
    """Numbers of four bytes."""
    return np.frombuffer(data, _POSTING).astype(np.int64)
