"""
Questions to a team's memory, with the memories that answer them: the set behind `benchmarks/recall.py`.

Nobody's recordings are used. `sessions-*.txt` is written by hand; `made.py` makes more sessions by rule, and filler of
the same vocabulary that answers nothing. A line of the text files is one of

    == date author                                     a session begins
    key | kind | title or nothing | content            a memory; `key<old` supersedes the memory `old`
    ? category | question | key,key                    a question, and the memories that hold its answer

The questions of one session are all in one half: `dev`, on which weights were chosen, or `test`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

CATEGORIES: Final = (
    "identifier",  # a name, path, number or message, as it stands in the memory
    "paraphrase",  # other words, some of them shared
    "window",  # the words stand in the turn before; the answer does not repeat them
    "author",  # what somebody said or decided
    "when",  # a month and a year
    "superseded",  # the fact that holds now
    "language",  # German, Russian, Chinese, Japanese
    "multihop",  # two memories together
)


_BALANCED: Final = 4
"""The byte of the hash that halves every category best; it was chosen before anything was measured."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory of a session. supersedes: the key of the one that it takes the place of."""

    key: str
    session: str
    author: str
    at: datetime
    kind: str
    title: str | None
    content: str
    keywords: tuple[str, ...] = ()
    supersedes: str | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, its category, and the keys of the memories that hold its answer."""

    category: str
    text: str
    evidence: frozenset[str]
    session: str

    @property
    def half(self) -> str:
        """The half that it belongs to, by a hash of its session."""
        return ("dev", "test")[sha256(self.session.encode()).digest()[_BALANCED] & 1]


@dataclass(kw_only=True)
class Set:
    """Memories in order of time, and questions."""

    memories: list[Memory] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)


def written() -> Set:
    """The part that is written by hand."""
    whole = Set()
    for file in sorted(Path(__file__).parent.glob("sessions-*.txt")):
        for name, lines in _sessions(file):
            _read(name, lines, whole)
    keys = {memory.key for memory in whole.memories}
    assert len(keys) == len(whole.memories), "a key stands twice"
    assert all(question.evidence <= keys for question in whole.questions), "a question names no memory"
    return whole


def _sessions(file: Path) -> Iterator[tuple[str, list[str]]]:
    for part in file.read_text(encoding="utf-8").split("\n== ")[1:]:
        head, *lines = part.splitlines()
        yield head, [line for line in lines if line]


def _read(head: str, lines: list[str], into: Set) -> None:
    day, author = head.split()
    at = datetime.fromisoformat(day).replace(hour=9, tzinfo=UTC)
    for place, line in enumerate(lines):
        fields = [part.strip() for part in line.removeprefix("?").split(" | ")]
        if line.startswith("?"):
            category, text, keys = fields
            assert category in CATEGORIES, line
            evidence = frozenset(keys.split(","))
            into.questions.append(Question(category=category, text=text, evidence=evidence, session=head))
            continue
        key, kind, title, content = (part.strip() for part in line.split("|", 3))
        key, _, old = key.partition("<")
        into.memories.append(
            Memory(
                key=key,
                session=head,
                author=author,
                at=at + timedelta(minutes=3 * place),
                kind=kind,
                title=title or None,
                content=content,
                supersedes=old or None,
            )
        )
