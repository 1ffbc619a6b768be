"""
Ranks what a question's words found in the search index: BM25 with a window over neighbouring turns.

A document's score for a word grows with what stands in it and, less, in its neighbours of the same session; a word is
worth its rarity. Formulas, weights and where they were measured: `docs/decisions/0067-search-index.md`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from commonplace_runtime.domain.postings import (
    BLOCK,
    DOCUMENTS,
    SINGLES,
    Ints,
    unpack_numbers,
    unpack_postings,
    unpack_terms,
)

Floats: TypeAlias = npt.NDArray[np.float64]

MOST_POSTINGS: Final = 60_000
"""Postings that one question reads; the commonest words are left out first."""
TAIL: Final = 0
"""The index that the documents of the tail are said to be in; their number is the memory's."""

_OWN: Final = 2.0
_NEIGHBOURS: Final = ((-3, 0.3), (-2, 0.7), (-1, 1.2), (1, 0.8), (2, 0.4))
_PAD: Final = 3
_IMPACT: Final = 1.9 / 63
"""An impact of 63 as BM25's tf part, whose bound is k1 + 1."""
_SATURATION: Final = 2.0
_SESSION_WORTH, _SESSION_SATURATION = 0.15, 3.0
_BLOCKS: Final = 64
"""Blocks that are looked at turn by turn."""
_QUESTION: Final = 3
"""From so many words on a turn is found by what stands beside it, though it has none of the words itself."""
_DOCUMENT_BITS: Final = 25
_DOCUMENT_MASK: Final = DOCUMENTS - 1


class Part(NamedTuple):
    """A row of `search_parts`, which says what each holds."""

    part: Literal["words", "size", "list", "tail", "terms", "rows"]
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
    """
    One entry a posting, in four columns: the place of its word in `rarity`, the place of its index in `indexes`, its
    document, and BM25's tf part. The tail is the last of `indexes`; its documents are numbered as `tail` says.

    rarity: idf of the words that were found. tail: number of the memory by document, first of blocks, then of singles.
    """

    word: Ints
    index: Ints
    docno: Ints
    tf: Floats
    indexes: list[int]
    rarity: Floats
    tail: tuple[Ints, Ints]


def rank(parts: Sequence[Part], *, most: int) -> Ranking | None:
    """The `most` documents that answer best; None where the rows must be read instead."""
    if any(part.part == "rows" for part in parts):
        return None
    postings = _gather(parts)
    return Ranking() if postings is None else _best(postings, most)


def _gather(parts: Sequence[Part]) -> _Postings | None:
    """The postings of the rarest words, as many as one question may read; None for no posting at all."""
    lists: dict[int, dict[int, list[bytes]]] = defaultdict(lambda: defaultdict(list))
    frequency: dict[int, int] = defaultdict(int)
    documents = 0
    blobs: dict[str, bytes] = {}
    for part in parts:
        if part.part == "list":
            lists[part.number][part.index_no].append(part.data)
            frequency[part.number] += len(part.data) // 4
        elif part.part == "size":
            documents += part.number
        else:
            blobs[part.part] = part.data
    tail = _tail(blobs.get("words", b""), blobs.get("tail", b""), blobs.get("terms", b""))
    for term, count in zip(*np.unique(tail.term, return_counts=True), strict=True):
        frequency[int(term)] += int(count)
    documents += tail.documents
    words = _affordable(frequency)
    if not words:
        return None
    indexes = sorted({index_no for word in words for index_no in lists[word]})
    columns: list[tuple[int, int, Ints, Ints]] = []
    for place, word in enumerate(words):
        for index_no, data in lists[word].items():
            columns.append((place, indexes.index(index_no), *unpack_postings(data)))
        mine = tail.term == word
        columns.append((place, len(indexes), tail.docno[mine], tail.impact[mine]))
    lengths = [len(docno) for _, _, docno, _ in columns]
    seen = np.array([frequency[word] for word in words], np.float64)
    return _Postings(
        word=np.repeat(np.array([place for place, _, _, _ in columns], np.int64), lengths),
        index=np.repeat(np.array([index for _, index, _, _ in columns], np.int64), lengths),
        docno=np.concatenate([docno for _, _, docno, _ in columns]),
        tf=np.concatenate([impact for _, _, _, impact in columns]) * _IMPACT,
        indexes=[*indexes, TAIL],
        rarity=np.log1p(np.maximum(documents - seen + 0.5, 0.5) / (seen + 0.5)),
        tail=(tail.blocks, tail.singles),
    )


@dataclass(frozen=True, kw_only=True)
class _Tail:
    """The question's words in memories that wait, as if these had been merged; `blocks` and `singles` name them."""

    documents: int
    term: Ints
    docno: Ints
    impact: Ints
    blocks: Ints
    singles: Ints


def _tail(words: bytes, heads: bytes, terms: bytes) -> _Tail:
    numbers, counts, sessions = unpack_numbers(heads).reshape(-1, 3).T
    blocks = np.empty(0, np.int64)
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
    asked = np.isin(term, unpack_numbers(words))
    docno = np.repeat(docnos, counts)[asked]
    return _Tail(
        documents=len(numbers),
        term=term[asked],
        docno=docno,
        impact=impact[asked],
        blocks=blocks,
        singles=numbers,
    )


def _affordable(frequency: Mapping[int, int]) -> list[int]:
    """The rarest words, until their postings are too many; one at least."""
    chosen: list[int] = []
    postings = 0
    for word in sorted(frequency, key=lambda word: (frequency[word], word)):
        postings += frequency[word]
        if chosen and postings > MOST_POSTINGS:
            break
        chosen.append(word)
    return chosen


def _best(found: _Postings, most: int) -> Ranking:
    is_single = found.docno >= SINGLES
    key = found.index << _DOCUMENT_BITS | np.where(is_single, found.docno, found.docno // BLOCK)
    units, unit = np.unique(key, return_inverse=True)
    words, count = len(found.rarity), len(units)
    tf = _sums(found.word * count + unit, found.tf, (words, count))
    session = _SESSION_WORTH * (found.rarity @ (tf / (tf + _SESSION_SATURATION)))

    single = np.flatnonzero(units & _DOCUMENT_MASK >= SINGLES)
    own = _OWN * tf[:, single]
    scores: list[Floats] = [found.rarity @ (own / (own + _SATURATION)) + session[single]]
    keys = [units[single]]

    blocks = np.flatnonzero(units & _DOCUMENT_MASK < SINGLES)
    if len(blocks):
        in_all = tf[:, blocks]
        chosen = blocks[_largest(found.rarity @ (in_all / (in_all + 1)), max(_BLOCKS, most // 4))]
        slot = np.full(count, -1)
        slot[chosen] = np.arange(len(chosen))
        mine = np.flatnonzero(slot[unit] >= 0)
        row = BLOCK + 2 * _PAD
        at = (found.word[mine] * len(chosen) + slot[unit[mine]]) * row + _PAD + found.docno[mine] % BLOCK
        turns = _sums(at, found.tf[mine], (words, len(chosen), row))
        alone: Floats = turns[:, :, _PAD : _PAD + BLOCK]
        window: Floats = _OWN * alone
        for step, weight in _NEIGHBOURS:
            window = window + weight * turns[:, :, _PAD + step : _PAD + step + BLOCK]
        score: Floats = np.tensordot(found.rarity, window / (window + _SATURATION), 1)
        counts = score > 0 if words >= _QUESTION else alone.any(axis=0)
        score = np.where(counts, score + session[chosen][:, None], 0.0)
        rows, places = np.nonzero(score)
        scores.append(score[rows, places])
        keys.append(units[chosen[rows]] & ~_DOCUMENT_MASK | (units[chosen[rows]] & _DOCUMENT_MASK) * BLOCK + places)

    every, of = np.concatenate(scores), np.concatenate(keys)
    order = _largest(every, most)
    order = order[np.lexsort((-of[order], -every[order]))]
    return _named(found, of[order], every[order])


def _sums(at: Ints, values: Floats, shape: tuple[int, ...]) -> Floats:
    """An array of `shape` with the sums of the values whose flat place is `at`."""
    sums: Floats = np.bincount(at, values, int(np.prod(shape))).astype(np.float64, copy=False)
    return sums.reshape(shape)


def _largest(score: Floats, most: int) -> Ints:
    """Places of the `most` largest, in no order."""
    return np.arange(len(score)) if len(score) <= most else np.argpartition(score, len(score) - most)[-most:]


def _named(found: _Postings, key: Ints, score: Floats) -> Ranking:
    """Documents as the database knows them. A place of the tail where nothing waits is left out."""
    index, docno = key >> _DOCUMENT_BITS, key & _DOCUMENT_MASK
    blocks, singles = found.tail
    waits = index == len(found.indexes) - 1
    of_session, alone = waits & (docno < SINGLES), waits & (docno >= SINGLES)
    docno[of_session] = blocks[docno[of_session]]
    docno[alone] = singles[docno[alone] - SINGLES]
    there = ~waits | (docno > 0)
    return Ranking(
        indexes=[found.indexes[place] for place in index[there]],
        docnos=docno[there].tolist(),
        scores=score[there].tolist(),
    )
