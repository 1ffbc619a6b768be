"""Sentences that tell the reader what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean search?` for the nearest known name, else nothing."""
    nearest = get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""
