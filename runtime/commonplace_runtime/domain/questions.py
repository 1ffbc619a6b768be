"""What a question names beside its words: a time, an author."""

import re
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:[-.@][^\W_]+)*")
_YEAR: Final = re.compile(r"\b((?:19|20)\d\d)(?:-(0[1-9]|1[0-2])(?:-\d\d)?)?\b")
"""A year, or the year and month of a date as ISO 8601 writes it."""
_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH: Final = re.compile(rf"\b({'|'.join(_MONTHS)})\b", re.IGNORECASE)
_IN_MAY: Final = re.compile(r"\b(?:in|of|since|last)\s+may\b|\bmay\s+(?:\d\d?,?\s+)?\d{4}\b", re.IGNORECASE)
_NOBODY: Final = (
    *("a", "am", "an", "as", "at", "be", "by", "do", "don", "he", "her", "i", "in", "is", "it", "ma", "me", "my", "no"),
    *("of", "on", "or", "she", "so", "the", "to", "up", "us", "we", "will", "you"),
)
"""Words of a sentence that are names or initials too: somebody's only where they are written like one."""
_MOST: Final = 64
_LETTER_OF_WORD: Final = re.compile(r"[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
"""Chinese, Japanese and Korean are written without spaces."""
_QUESTION: Final = 3


@dataclass(frozen=True, kw_only=True)
class Hints:
    """
    words: in lower case, of which one may be an author's name. months: 1 to 12.

    asks: this is a question; fewer words are a look-up of these words.
    """

    words: list[str]
    years: list[int]
    months: list[int]
    asks: bool = False


def hints_of(query: str | None) -> Hints:
    """
    What `query` names. "may" is a month only beside a year or after "in", "of", "since": it is a verb elsewhere.
    """
    text = query or ""
    # A sentence begins with a capital, whatever its first word is.
    said = [word if place else word.lower() for place, word in enumerate(_WORD.findall(text))]
    words = list(dict.fromkeys(word.lower() for word in said if word not in _NOBODY))[:_MOST]
    dates = _YEAR.findall(text)
    years = sorted({int(year) for year, _ in dates})[:_MOST]
    months = {_MONTHS.index(month.lower()) + 1 for month in _MONTH.findall(text)}
    if 5 in months and not _IN_MAY.search(text):
        months.discard(5)
    months |= {int(month) for _, month in dates if month}
    asks = len(text.split()) >= _QUESTION or len(_LETTER_OF_WORD.findall(text)) > _QUESTION
    return Hints(words=words, years=years, months=sorted(months), asks=asks)
