"""
Ranks what a question's words found in the search index: BM25 with a window over neighbouring turns.

A document's score for a word grows with what stands in it and, less, in its neighbours of the same session; a word is
worth its rarity. Formulas, weights and where they were measured: `docs/decisions/0067-search-index.md`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from commonplace_runtime.domain.postings import (
    BLOCK,
    SINGLES,
    Ints,
    unpack_numbers,
    unpack_postings,
    unpack_terms,
    without,
)

Floats: TypeAlias = npt.NDArray[np.floating]

MOST_WORDS: Final = 64
"""Words of a question that count, the rarest of those that occur: what is pasted has some hundred."""
MOST_POSTINGS: Final = 60_000
"""Postings that one question reads; the commonest words are left out first."""
TAIL: Final = 0
"""The index that the documents of the tail are said to be in; their number is the memory's."""

_OWN: Final = 2.0
_STEPS: Final = np.array([0, 3, 2, 1, -1, -2])
_WEIGHTS: Final = np.array([_OWN, 0.3, 0.7, 1.2, 0.8, 0.4])
"""What a word is worth where it stands and so many turns further on; before it, where the step is negative."""
_ROW: Final = BLOCK + 6
"""A block's turns with three places before and after them, which a window may reach and nobody reads."""
_SATURATION: Final = 2.0
_IMPACT: Final = 1.9 / 63
"""An impact of 63 as BM25's tf part, whose bound is k1 + 1."""
_SESSION_WORTH, _SESSION_SATURATION = 0.15, 3.0
_ROUGHLY: Final = 2048
"""Blocks whose words are added up each by itself: those where the sum over all words is greatest."""
_BLOCKS: Final = 100
"""Blocks that are looked at turn by turn."""
_QUESTION: Final = 3
"""Words that must be found before what stands beside them answers too."""
_ALIKE: Final = 2**12 - 1
"""Bits by which most words differ."""
_DENSE: Final = 2**22
"""Up to so many numbers a table of all is cheaper than sorting those that occur."""


class Part(NamedTuple):
    """A row of `search_parts`, which says what each holds."""

    part: Literal["words", "size", "dead", "list", "tail", "terms", "rows"]
    index_no: int = 0
    number: int = 0
    data: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Documents, best first, in three columns."""

    indexes: list[int] = field(default_factory=list)
    docnos: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Postings:
    """One entry a posting: the place of its word among those that count, its document, BM25's tf part."""

    word: Ints
    docno: Ints
    tf: Floats

    def only(self, which: npt.NDArray[np.bool_]) -> "_Postings":
        """Those where `which` says so."""
        places = np.flatnonzero(which)
        return _Postings(word=self.word[places], docno=self.docno[places], tf=self.tf[places])


@dataclass(frozen=True, kw_only=True)
class _Tail:
    """
    The question's words in memories that wait, as if these had been merged.

    blocks, singles: a memory's number by its document; 0 where a block has none.
    """

    term: Ints
    docno: Ints
    impact: Ints
    blocks: Ints
    singles: Ints


def rank(parts: Sequence[Part], *, most: int, asks: bool = True) -> Ranking | None:
    """
    The `most` documents that answer best; None where the rows must be read instead.

    asks: this is a question; what stands beside a match is found too, though it has none of the words itself.
    """
    blobs = {part.part: part.data for part in parts}
    if "rows" in blobs:
        return None
    if "dead" in blobs:
        parts = _living(parts)
    lists: dict[int, list[Part]] = {}
    for part in parts:
        if part.part == "list":
            lists.setdefault(part.number, []).append(part)
    tail = _tail(blobs.get("words", b""), blobs.get("tail", b""), blobs.get("terms", b""))
    documents = len(tail.singles) + sum(part.number for part in parts if part.part == "size")
    frequency = {term: sum(len(part.data) for part in found) // 4 for term, found in lists.items()}
    for term in tail.term.tolist():
        frequency[term] = frequency.get(term, 0) + 1
    words = _affordable(frequency)
    if not words:
        return Ranking()
    seen = np.array([frequency[word] for word in words])
    rarity = np.log1p(np.maximum(documents - seen + 0.5, 0.5) / (seen + 0.5)).astype(np.float32)
    found = [(index_no, *_best(postings, rarity, most, asks)) for index_no, postings in _merged(lists, words)]
    waiting = _waiting(tail, words)
    if len(waiting.docno):
        docno, score = _best(waiting, rarity, most, asks)
        found.append((TAIL, *_numbers(tail, docno, score)))
    return _together(found, most)


def _living(parts: Sequence[Part]) -> list[Part]:
    """The parts as they will be when what is gone was purged: what stood beside it must not tell of it."""
    dead = {part.index_no: unpack_numbers(part.data) for part in parts if part.part == "dead"}
    left = []
    for part in parts:
        gone = dead.get(part.index_no)
        if gone is None:
            left.append(part)
        elif part.part == "size":
            left.append(part._replace(number=part.number - len(gone)))
        elif part.part == "list" and (data := without([part.data], gone)[0]):
            left.append(part._replace(data=data))
    return left


def _tail(words: bytes, heads: bytes, terms: bytes) -> _Tail:
    blocks = np.empty(0, np.int64)
    if not heads:
        return _Tail(term=blocks, docno=blocks, impact=blocks, blocks=blocks, singles=blocks)
    numbers, counts, sessions = unpack_numbers(heads).reshape(-1, 3).T
    docnos = SINGLES + np.arange(len(numbers))
    in_session = np.flatnonzero(sessions)
    if len(in_session):
        order = in_session[np.argsort(sessions[in_session], kind="stable")]
        _, starts, sizes = np.unique(sessions[order], return_index=True, return_counts=True)
        spans = -(-sizes // BLOCK)
        begins = np.repeat((np.cumsum(spans) - spans) * BLOCK - starts, sizes)
        docnos[order] = begins + np.arange(len(order))
        blocks = np.zeros(int(spans.sum()) * BLOCK, np.int64)
        blocks[docnos[order]] = numbers[order]
    term, impact = unpack_terms(terms)
    asked_for = unpack_numbers(words)
    # By a few bits first: comparing every word of the tail with every word of the question takes ten times as long.
    alike = np.zeros(_ALIKE + 1, np.bool_)
    alike[asked_for & _ALIKE] = True
    asked = np.flatnonzero(alike[term & _ALIKE])
    asked = asked[(term[asked][:, None] == asked_for).any(axis=1)]
    docno = np.repeat(docnos, counts)[asked]
    return _Tail(term=term[asked], docno=docno, impact=impact[asked], blocks=blocks, singles=numbers)


def _affordable(frequency: Mapping[int, int]) -> list[int]:
    """The rarest words, until they or their postings are too many; one at least."""
    chosen: list[int] = []
    postings = 0
    for word in sorted(frequency, key=lambda word: (frequency[word], word))[:MOST_WORDS]:
        postings += frequency[word]
        if chosen and postings > MOST_POSTINGS:
            break
        chosen.append(word)
    return chosen


def _merged(lists: Mapping[int, Sequence[Part]], words: Sequence[int]) -> Iterator[tuple[int, _Postings]]:
    """The postings of each index."""
    by_index: dict[int, list[tuple[int, bytes]]] = {}
    for place, word in enumerate(words):
        for part in lists.get(word, ()):
            by_index.setdefault(part.index_no, []).append((place, part.data))
    for index_no, found in by_index.items():
        docno, impact = unpack_postings(data for _, data in found)
        word_of = np.repeat([place for place, _ in found], [len(data) // 4 for _, data in found])
        yield index_no, _Postings(word=word_of, docno=docno, tf=impact * _IMPACT)


def _waiting(tail: _Tail, words: Sequence[int]) -> _Postings:
    order = np.argsort(words)
    terms = np.array(words)[order]
    place = np.minimum(np.searchsorted(terms, tail.term), len(words) - 1)
    every = _Postings(word=order[place], docno=tail.docno, tf=tail.impact * _IMPACT)
    return every.only(terms[place] == tail.term)


def _best(found: _Postings, rarity: Floats, most: int, asks: bool) -> tuple[Ints, Floats]:
    """The `most` best documents of one index or a few more, and what they are worth."""
    single = found.docno >= SINGLES
    if single.all():
        return _singles(found, rarity)
    if not single.any():
        return _turns(found, rarity, most, asks)
    of_singles, of_turns = _singles(found.only(single), rarity), _turns(found.only(~single), rarity, most, asks)
    return np.concatenate([of_singles[0], of_turns[0]]), np.concatenate([of_singles[1], of_turns[1]])


def _singles(found: _Postings, rarity: Floats) -> tuple[Ints, Floats]:
    units, at = _numbered(found.docno - SINGLES)
    own = _OWN * found.tf
    worth = own / (own + _SATURATION) + _SESSION_WORTH * (found.tf / (found.tf + _SESSION_SATURATION))
    return units + SINGLES, _sums(at, rarity[found.word] * worth, len(units))


def _turns(found: _Postings, rarity: Floats, most: int, asks: bool) -> tuple[Ints, Floats]:
    words = len(rarity)
    blocks, at = _numbered(found.docno // BLOCK)
    if len(blocks) > _ROUGHLY:
        found, blocks, at = _narrow(
            found, blocks, at, _largest(_sums(at, rarity[found.word] * found.tf, len(blocks)), _ROUGHLY)
        )
    if len(blocks) > (few := max(_BLOCKS, most // 4)):
        sums = _sums(found.word * len(blocks) + at, found.tf, words * len(blocks)).reshape(words, -1)
        found, blocks, at = _narrow(found, blocks, at, _largest(_over_words(sums, 1.0, rarity), few))
    rows = words * len(blocks)
    row, place = found.word * len(blocks) + at, found.docno % BLOCK
    reached = (row * _ROW + place + 3)[:, None] + _STEPS
    window = _sums(reached.ravel(), (found.tf[:, None] * _WEIGHTS).ravel(), rows * _ROW)
    score = _over_words(window.reshape(words, -1), _SATURATION, rarity).reshape(-1, _ROW)[:, 3 : 3 + BLOCK].ravel()
    session = _over_words(_sums(row, found.tf, rows).reshape(words, -1), _SESSION_SATURATION, rarity)
    counts = np.flatnonzero(score) if asks and words >= _QUESTION else _numbered(at * BLOCK + place)[0]
    block = counts // BLOCK
    return blocks[block] * BLOCK + counts % BLOCK, score[counts] + _SESSION_WORTH * session[block]


def _over_words(tf: Floats, saturation: float, rarity: Floats) -> Floats:
    """
    What the columns of `tf`, whose rows are words, are worth. Overwrites `tf`.

    Not a product of matrices: that would be shared among threads, which cost more than the work.
    """
    tf /= tf + saturation
    tf *= rarity[:, None]
    worth: Floats = tf.sum(axis=0)
    return worth


def _narrow(found: _Postings, units: Ints, at: Ints, chosen: Ints) -> tuple[_Postings, Ints, Ints]:
    """The postings in the units at the places `chosen`, these units, and each posting's place among them."""
    slot = np.full(len(units), -1)
    slot[chosen] = np.arange(len(chosen))
    slots = slot[at]
    kept = slots >= 0
    return found.only(kept), units[chosen], slots[kept]


def _numbered(numbers: Ints) -> tuple[Ints, Ints]:
    """The different numbers (from 0 on), ascending, and the place of each among them."""
    span = int(numbers.max()) + 1
    if span > _DENSE:
        return np.unique(numbers, return_inverse=True)
    occurs = np.zeros(span, np.bool_)
    occurs[numbers] = True
    different = np.flatnonzero(occurs)
    place = np.empty(span, np.int64)
    place[different] = np.arange(len(different))
    return different, place[numbers]


def _sums(at: Ints, values: Floats, length: int) -> Floats:
    """The sums of the values of each place."""
    return np.bincount(at, values, length).astype(np.float32)


def _largest(score: Floats, most: int) -> Ints:
    """Places of the `most` largest; of equals the last ones, which are the newer."""
    if len(score) <= most:
        return np.arange(len(score))
    least = np.partition(score, len(score) - most)[len(score) - most]
    above = np.flatnonzero(score > least)
    return np.concatenate([above, np.flatnonzero(score == least)[len(above) - most :]])


def _numbers(tail: _Tail, docno: Ints, score: Floats) -> tuple[Ints, Floats]:
    """The memories behind the tail's documents; a place of a block where none waits is left out."""
    number = docno.copy()
    single = docno >= SINGLES
    number[single] = tail.singles[docno[single] - SINGLES]
    number[~single] = tail.blocks[docno[~single]]
    return number[number > 0], score[number > 0]


def _together(found: Sequence[tuple[int, Ints, Floats]], most: int) -> Ranking:
    """The best of all indexes; of equals what waits comes first, then the greater number: the newer memory."""
    index = np.repeat([index_no for index_no, _, _ in found], [len(docno) for _, docno, _ in found])
    docno = np.concatenate([docno for _, docno, _ in found])
    score = np.concatenate([score for _, _, score in found])
    best = _largest(score, most)
    best = best[np.lexsort((-docno[best], -index[best], index[best] != TAIL, -score[best]))]
    return Ranking(indexes=index[best].tolist(), docnos=docno[best].tolist(), scores=score[best].tolist())
