"""What a generator reads and what it makes: events of one session in, observations that cite them out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Final

from commonplace_runtime.domain.retry import Failure

TITLE_CHARACTERS: Final = 120
BODY_CHARACTERS: Final = 1400
FACT_CHARACTERS: Final = 300
PATH_CHARACTERS: Final = 1000
MAX_FACTS: Final = 12
MAX_KEYWORDS: Final = 16
MAX_FILES: Final = 20


@dataclass(frozen=True, kw_only=True)
class SourceEvent:
    """
    One raw event. In a batch it is known by its number: its place, counted from 1.

    parts: where it stands for a run of events, all of them, itself first.
    """

    event_type: str
    source_adapter: str
    platform_source: str | None
    occurred_at: datetime
    payload: object
    parts: Sequence["SourceEvent"] = ()

    @property
    def shown(self) -> Sequence["SourceEvent"]:
        """The events of its run, or itself alone."""
        return self.parts or (self,)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """
    One memory to be. `evidence` holds the numbers of the events it was made from, `replaces` the places (from 1) of
    earlier memories, among those that the batch showed, that it puts right.

    facts, concepts, files and keywords are lists without order or meaning of place; `extra` goes into the row's
    metadata as it is.
    """

    kind: str
    title: str
    narrative: str
    evidence: Sequence[int]
    subtitle: str = ""
    facts: Sequence[str] = ()
    concepts: Sequence[str] = ()
    files_read: Sequence[str] = ()
    files_modified: Sequence[str] = ()
    keywords: Sequence[str] = ()
    replaces: Sequence[int] = ()
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SessionSummary:
    """What a session was about, in claude-mem's fields; empty where nothing is known."""

    request: str = ""
    investigated: str = ""
    learned: str = ""
    completed: str = ""
    next_steps: str = ""
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """
    What a generator gave. An empty list of observations means: nothing worth recording.

    `summary`: the session's, brought up to date; None where the generator left it as it was. Tokens are those of the
    call that succeeded; what calls before it used stands in `earlier`.
    """

    observations: Sequence[Observation]
    provider: str
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    skip_reason: str | None = None
    summary: SessionSummary | None = None
    earlier: Sequence[Failure] = ()


def clip(text: str, limit: int) -> str:
    """`text` on at most `limit` characters, cut at a word where one ends near."""
    text = text.strip()
    if len(text) <= limit:
        return text
    cut = text[: limit - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > limit * 2 // 3 else cut).rstrip() + "…"


def head_and_tail(text: str, limit: int) -> str:
    """`text` on about `limit` characters: two thirds from its beginning, one third from its end."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}\n… {len(text) - limit} characters left out …\n{text[head - limit :]}"


def content_of(observation: Observation) -> str:
    """The row's text, as claude-mem lays it out: title, subtitle, narrative, then the facts as a list."""
    facts = "\n".join(f"- {fact}" for fact in observation.facts)
    # A short text is its own title.
    title = "" if " ".join(observation.narrative.split()) == observation.title else observation.title
    return "\n\n".join(part for part in (title, observation.subtitle, observation.narrative, facts) if part)


def metadata_of(observation: Observation, generated: Generated) -> dict[str, object]:
    """The row's metadata: the fields of claude-mem's observation, and who made it."""
    return {
        "title": observation.title,
        "subtitle": observation.subtitle or None,
        "narrative": observation.narrative or None,
        "facts": list(observation.facts),
        "concepts": list(observation.concepts),
        "files_read": list(observation.files_read),
        "files_modified": list(observation.files_modified),
        "provider": generated.provider,
        "model": generated.model,
        "generator": generated.provider,
        **observation.extra,
    }


def summary_content(summary: SessionSummary) -> str:
    """The row's text, as claude-mem lays it out: `Request: …` and so on, what is known only, blank lines between."""
    labelled = ((name.capitalize().replace("_", " "), text.strip()) for name, text in asdict(summary).items())
    return "\n\n".join(f"{label}: {text}" for label, text in labelled if text)


def summary_metadata(summary: SessionSummary, generated: Generated) -> dict[str, object]:
    """The row's metadata: claude-mem's six fields, null where nothing is known, and who made it."""
    return {
        **{name: text.strip() or None for name, text in asdict(summary).items()},
        "provider": generated.provider,
        "model": generated.model,
        "generator": generated.provider,
    }


def unique(values: Sequence[str], limit: int) -> tuple[str, ...]:
    """The first `limit` different values that are not blank, in order."""
    return tuple(dict.fromkeys(value.strip() for value in values if value.strip()))[:limit]


def bounded(observation: Observation) -> Observation:
    """The same observation within the sizes that a memory may have."""
    return Observation(
        kind=clip(observation.kind, 40) or "discovery",
        title=clip(" ".join(observation.title.split()), TITLE_CHARACTERS),
        subtitle=clip(observation.subtitle, 2 * TITLE_CHARACTERS),
        narrative=head_and_tail(observation.narrative.strip(), BODY_CHARACTERS),
        evidence=tuple(observation.evidence),
        facts=unique([clip(fact, FACT_CHARACTERS) for fact in observation.facts], MAX_FACTS),
        concepts=unique([clip(concept, FACT_CHARACTERS) for concept in observation.concepts], MAX_FACTS),
        files_read=unique([clip(path, PATH_CHARACTERS) for path in observation.files_read], MAX_FILES),
        files_modified=unique([clip(path, PATH_CHARACTERS) for path in observation.files_modified], MAX_FILES),
        keywords=unique([clip(word, 60) for word in observation.keywords], MAX_KEYWORDS),
        replaces=tuple(observation.replaces),
        extra=observation.extra,
    )
