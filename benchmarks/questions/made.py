"""Sessions, questions and filler by rule: the same for the same seed, in the words of the part that is written."""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from benchmarks.questions import Memory, Question, Set

_START: Final = datetime(2025, 1, 6, 8, tzinfo=UTC)
_DAYS: Final = 660
_AUTHORS: Final = ("lena", "omar", "mei", "pavel", "ines", "tomas", "yuki", "ruth")
_FIRST: Final = (
    *("invoice", "stock", "checkout", "voucher", "parcel", "refund", "search", "basket", "partner", "image", "mail"),
    *("price", "return", "order", "label", "session", "report", "webhook", "campaign", "supplier"),
)
_SECOND: Final = ("worker", "service", "export", "importer", "cache", "queue", "gateway", "scheduler", "mirror", "page")
_PARTS: Final = random.Random(0).sample(
    [f"{first} {second}" for first in _FIRST for second in _SECOND], len(_FIRST) * len(_SECOND)
)
_ASKED, _OTHERS = _PARTS[:120], _PARTS[120:]
"""Filler says nothing of a part that a question asks for: it would be another answer."""
_SYMPTOMS: Final = (
    *("fail after midnight", "answer with 502", "run out of memory", "lose messages", "send everything twice"),
    *("hang at start", "eat all connections", "show old data", "time out under load", "crash on empty input"),
)
_CAUSES: Final = (
    "A lock was held across the network call; it is released before the call now.",
    "The pool had five connections and nobody gave them back on errors.",
    "Retries had no jitter, so all of them came in the same second.",
    "The clock of one machine was wrong and tokens looked expired.",
    "An index was missing, and the planner read the whole table.",
    "The loop caught every exception and went on with half of the rows.",
    "Two versions ran side by side and wrote to the same key.",
    "A header above eight kilobytes was cut by the proxy.",
    "The default of the library changed from 30 seconds to none.",
    "Somebody had put the limit in megabits instead of megabytes.",
)
_LIBRARIES: Final = ("orjson", "pgx", "zod", "grpc-go", "pillow", "netty", "serde", "okhttp", "celery", "libxml2")
_CHOICES: Final = (
    *("batches of 500", "a queue in Redis", "gzip for everything", "one replica only", "exponential backoff"),
    *("a read replica", "server-sent events", "protobuf", "a nightly job", "optimistic locking"),
)
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_FUNCTIONS: Final = ("load", "parse", "merge", "send", "settle", "reserve", "notify", "close")


class _Session:
    """Collects the memories of one session."""

    def __init__(self, name: str, author: str, at: datetime) -> None:
        self.name, self.author, self.at = name, author, at
        self.memories: list[Memory] = []

    def add(self, kind: str, content: str, *, title: str | None = None, supersedes: str | None = None) -> str:
        key = f"{self.name}.{len(self.memories)}"
        at = self.at + timedelta(minutes=3 * len(self.memories))
        keywords = tuple(dict.fromkeys(re.findall(r"[a-z]{4,}", (title or "").lower())))
        self.memories.append(
            Memory(
                key=key,
                session=self.name,
                author=self.author,
                at=at,
                kind=kind,
                title=title,
                content=content,
                keywords=keywords,
                supersedes=supersedes,
            )
        )
        return key


class _Maker:
    """What one seed makes. parts: what the things of the shop are called."""

    def __init__(self, seed: int, chain: "_Chain", parts: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.chain, self.parts = chain, parts

    def session(self, name: str, author: str | None = None) -> _Session:
        at = _START + timedelta(days=self.random.randrange(_DAYS), minutes=self.random.randrange(540))
        return _Session(name, author or self.random.choice(_AUTHORS), at)

    def fact(self, into: _Session, part: str) -> None:
        """A turn that says something of a part, as the questions ask for it."""
        draw = self.random
        match draw.randrange(7):
            case 0:
                into.add("user_prompt", f"Why does the {part} {draw.choice(_SYMPTOMS)}?")
                into.add("discovery", draw.choice(_CAUSES))
            case 1:
                into.add("decision", f"{into.author.title()}: the {part} should use {draw.choice(_CHOICES)}.")
            case 2:
                into.add("change", f"{self.setting(part)} is {draw.randrange(2, 900)} now, for the {part}.")
            case 3:
                into.add("decision", f"The {part} belongs to {draw.choice(_AUTHORS).title()}'s group.")
            case 4:
                into.add(
                    "incident",
                    f"The {part} was down for {draw.randrange(5, 90)} minutes.",
                    title=f"Outage of the {part}",
                )
            case 5:
                into.add("observation", f"The {part} depends on {draw.choice(_LIBRARIES)} {self.version()}.")
            case 6:
                into.add(
                    "bugfix",
                    f"{self.function(part)} did not {draw.choice(_SYMPTOMS).split()[0]} any more after the fix.",
                )

    def setting(self, part: str) -> str:
        return f"{part.replace(' ', '_').upper()}_{self.random.choice(('LIMIT', 'SECONDS', 'SIZE', 'RETRIES'))}"

    def function(self, part: str) -> str:
        first, second = part.split()
        name = f"{self.random.choice(_FUNCTIONS)}{first.title()}{second.title()}"
        return f"{name} in {first}/{second}_{self.random.randrange(90)}.py"

    def version(self) -> str:
        return f"{self.random.randrange(1, 9)}.{self.random.randrange(30)}.{self.random.randrange(9)}"

    def chatter(self, into: _Session) -> None:
        """A turn in the written part's words, which says nothing."""
        kind = self.random.choice(("observation", "user_prompt", "discovery", "change", "decision"))
        words = self.chain.sentence(self.random)
        into.add(kind, words, title=" ".join(words.split()[:6]) if self.random.random() < 0.2 else None)


class _Chain:
    """Which word followed which in the written part; names with a figure in them get another figure."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        self.after: dict[str, list[str]] = defaultdict(list)
        self.units: list[str] = []
        for memory in memories:
            units = re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\s\u3040-\u30ff\u4e00-\u9fff]+", memory.content)
            self.units += units
            for left, right in pairwise(units):
                self.after[left].append(right)

    def sentence(self, draw: random.Random) -> str:
        unit, units = draw.choice(self.units), []
        for _ in range(draw.randrange(8, 34)):
            units.append(re.sub(r"\d", lambda _: str(draw.randrange(10)), unit))
            follows = self.after.get(unit)
            # A jump now and then: else whole answers would come back.
            unit = draw.choice(follows) if follows and draw.random() < 0.6 else draw.choice(self.units)
        return re.sub(r"(?<=[\u3040-\u9fff]) (?=[\u3040-\u9fff])", "", " ".join(units))


def made(seed: int, like: Set) -> Set:
    """Sessions of every kind with their questions, each about a part of its own."""
    maker, whole = _Maker(seed, _Chain(like.memories), _ASKED), Set()
    parts = iter(_ASKED)
    for number in range(len(_ASKED) // len(_KINDS)):
        for kind in _KINDS:
            for session, asked in kind(maker, f"{kind.__name__.strip('_')}-{number}", next(parts)):
                whole.memories += session.memories
                whole.questions += asked
    return whole


_Made = Iterator[tuple[_Session, list[Question]]]


def _ask(session: _Session, category: str, text: str, *keys: str) -> Question:
    name = re.sub(r"(-\d+).*", r"\1", session.name)
    return Question(category=category, text=text, evidence=frozenset(keys), session=name)


def _padded(maker: _Maker, session: _Session) -> None:
    for _ in range(maker.random.randrange(3)):
        maker.chatter(session)


def _setting(maker: _Maker, name: str, part: str) -> _Made:
    session = maker.session(name)
    _padded(maker, session)
    setting, where = maker.setting(part), maker.function(part)
    first = session.add("change", f"{setting} is {maker.random.randrange(2, 900)} now; the old value was a guess.")
    second = session.add("bugfix", f"{where} read the variable once at import; it is read at each start now.")
    _padded(maker, session)
    yield (
        session,
        [
            _ask(session, "identifier", f"what is {setting}", first),
            _ask(session, "identifier", where.split()[0], second),
            _ask(session, "paraphrase", f"which {setting.rsplit('_')[-1].lower()} did we set for the {part}", first),
        ],
    )


def _reason(maker: _Maker, name: str, part: str) -> _Made:
    session = maker.session(name)
    _padded(maker, session)
    symptom = maker.random.choice(_SYMPTOMS)
    session.add("user_prompt", f"The {part} seems to {symptom}. Any idea?")
    answer = session.add("discovery", maker.random.choice(_CAUSES))
    _padded(maker, session)
    yield session, [_ask(session, "window", f"why did the {part} {symptom}", answer)]


def _opinion(maker: _Maker, name: str, part: str) -> _Made:
    one, other = maker.random.sample(_AUTHORS, 2)
    choices = maker.random.sample(_CHOICES, 2)
    for place, (author, choice) in enumerate(zip((one, other), choices, strict=True)):
        session = maker.session(f"{name}.{place}", author)
        _padded(maker, session)
        key = session.add("preference", f"The {part} should use {choice}, whatever the others say.")
        _padded(maker, session)
        yield session, [_ask(session, "author", f"what does {author.title()} want for the {part}", key)]


def _owner(maker: _Maker, name: str, part: str) -> _Made:
    one, other = maker.random.sample(_AUTHORS, 2)
    old = maker.session(f"{name}.0")
    before = old.add("decision", f"The {part} belongs to {one.title()}'s group.", title=f"Owner of the {part}")
    _padded(maker, old)
    new = maker.session(f"{name}.1")
    _padded(maker, new)
    now = new.add("decision", f"{other.title()}'s group takes over the {part}, with its alerts.", supersedes=before)
    yield old, []
    yield new, [_ask(new, "superseded", f"who is the owner of the {part}", now)]


def _outages(maker: _Maker, name: str, part: str) -> _Made:
    seen: set[tuple[int, int]] = set()
    for place in range(3):
        session = maker.session(f"{name}.{place}")
        while (session.at.year, session.at.month) in seen:
            session = maker.session(f"{name}.{place}")
        seen.add((session.at.year, session.at.month))
        _padded(maker, session)
        key = session.add(
            "incident",
            f"The {part} was down for {maker.random.randrange(5, 90)} minutes. {maker.random.choice(_CAUSES)}",
            title=f"Outage of the {part}",
        )
        month = f"{_MONTHS[session.at.month - 1]} {session.at.year}"
        asked = _ask(session, "when", f"what happened to the {part} in {month}", key)
        yield session, [asked] if place == 0 else []


def _library(maker: _Maker, name: str, part: str) -> _Made:
    library, version = maker.random.choice(_LIBRARIES), maker.version()
    one = maker.session(f"{name}.0")
    _padded(maker, one)
    uses = one.add("observation", f"The {part} depends on {library} {version}.")
    other = maker.session(f"{name}.1")
    broken = other.add("discovery", f"{library} {version} leaks memory when a stream is closed early.")
    _padded(maker, other)
    yield one, []
    yield other, [_ask(other, "multihop", f"does the {part} leak memory because of {library}", uses, broken)]


_KINDS: Final = (_setting, _reason, _opinion, _owner, _outages, _library)


def filler(seed: int, like: Set, *, count: int) -> list[Memory]:
    """`count` memories or a few more, in sessions of about six."""
    maker = _Maker(seed, _Chain(like.memories), _OTHERS)
    memories: list[Memory] = []
    while len(memories) < count:
        session = maker.session(f"f{len(memories)}")
        part = maker.random.choice(maker.parts)
        for _ in range(maker.random.randrange(1, 9)):
            if maker.random.random() < 0.4:
                maker.fact(session, part if maker.random.random() < 0.5 else maker.random.choice(maker.parts))
            else:
                maker.chatter(session)
        memories += session.memories
    return memories
