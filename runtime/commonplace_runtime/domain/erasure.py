"""What is to be forgotten, what that took, and how much of it one transaction takes."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from typing_extensions import TypedDict

Kind: TypeAlias = Literal["memory", "query", "session", "file", "project"]

QUERY_LIMITS: Final = (20, 100)
"""How many of a query's best hits go: usually, at most. A query must not erase a project by accident."""

LEAST_ROWS: Final = 1
FIRST_ROWS: Final = 50
MOST_ROWS: Final = 500
_SLOW_SECONDS: Final = 0.1
_FAST_SECONDS: Final = 0.03


@dataclass(frozen=True, kw_only=True)
class Selection:
    """
    What is to be forgotten: exactly one of memory_id, query, session and file, or project alone, which is all of it.

    session: an id of ours or the client's own. project: id or name; it narrows query, session and file. limit: how
    many of a query's best hits.
    """

    memory_id: str | None = None
    query: str | None = None
    session: str | None = None
    file: str | None = None
    project: str | None = None
    limit: int = QUERY_LIMITS[0]

    def __post_init__(self) -> None:
        """Raises ValueError unless exactly one thing is selected."""
        named = sum(value is not None for value in (self.memory_id, self.query, self.session, self.file))
        if named > 1 or (named == 0 and self.project is None):
            raise ValueError("exactly one of memory_id, query, session, file, or project alone")

    @property
    def kind(self) -> Kind:
        """Which of them it is."""
        if self.memory_id is not None:
            return "memory"
        if self.query is not None:
            return "query"
        if self.session is not None:
            return "session"
        return "project" if self.file is None else "file"

    @property
    def value(self) -> str | None:
        """What was named; None for a project."""
        return self.memory_id or self.query or self.session or self.file


class Counts(TypedDict):
    """Rows that went; `summaries` are among the observations, `auditRows` stay without their content."""

    observations: int
    summaries: int
    agentEvents: int
    sessions: int
    jobs: int
    sources: int
    auditRows: int


class Gone(TypedDict):
    """A memory that went, or would."""

    id: str
    title: str | None
    kind: str


class Forgotten(TypedDict):
    """What an erasure took, or would take: `memories` are the newest 100. `erasureId` is null for a dry run."""

    erasureId: str | None
    dryRun: bool
    counts: Counts
    memories: list[Gone]


def counts_of(found: dict[str, int]) -> Counts:
    """Every figure, those that the database left out as 0."""
    return Counts(
        observations=found.get("observations", 0),
        summaries=found.get("summaries", 0),
        agentEvents=found.get("agentEvents", 0),
        sessions=found.get("sessions", 0),
        jobs=found.get("jobs", 0),
        sources=found.get("sources", 0),
        auditRows=found.get("auditRows", 0),
    )


def next_rows(rows: int, seconds: float) -> int:
    """How many rows the next transaction may take, when one of `rows` held its locks for `seconds`."""
    if seconds > _SLOW_SECONDS:
        return max(LEAST_ROWS, rows // 2)
    return min(MOST_ROWS, rows * 2) if seconds < _FAST_SECONDS else rows
