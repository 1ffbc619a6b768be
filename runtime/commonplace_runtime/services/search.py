"""Recall: what a team remembers, by words or by age: read postings, rank them, read the rows of the best."""

from dataclasses import replace
from typing import Final, cast

from commonplace_runtime.domain.models import Principal, Recall
from commonplace_runtime.domain.questions import hints_of
from commonplace_runtime.domain.ranking import rank
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.wire import ObservationRow
from commonplace_runtime.store import memories
from commonplace_runtime.store.pool import Pool

QUERY_CHARACTERS: Final = 4000
"""What the search reads of a query."""
NAME_CHARACTERS: Final = 201
"""One more than a name may have: a longer one finds nothing, whatever it begins with."""

CANDIDATES: Final = 400
"""Documents that are ranked for the longest answer: four times its length, for some are superseded or just erased."""
CANDIDATES_LEAST: Final = 100
"""For a short one."""
CANDIDATES_OF_PLATFORM: Final = 4000
"""Where only the rows tell which of them count."""


async def recall_memories(pool: Pool, principal: Principal, wanted: Recall, *, request_id: str) -> list[ObservationRow]:
    """
    The memories that answer `wanted`, best first, with their sources; the read is audited.

    The query is cleaned like an event, for the audit keeps it: what was private or secret was never stored, so it
    could not be found. Raises NotPermitted, ProjectMissing, Unavailable.
    """
    wanted = replace(
        wanted,
        query=clean_query(wanted.query),
        project=_clean(wanted.project and wanted.project[:NAME_CHARACTERS]),
        platform=_clean(wanted.platform and wanted.platform[:NAME_CHARACTERS]),
    )
    hints = hints_of(wanted.query)
    ranking = None
    if wanted.query is not None:
        most = max(CANDIDATES_LEAST, 4 * wanted.limit) if wanted.platform is None else CANDIDATES_OF_PLATFORM
        ranking = rank(await memories.search_parts(pool, principal, wanted), most=most, asks=hints.asks)
    return await memories.recall(pool, principal, wanted, ranking, hints, request_id=request_id)


def clean_query(query: str | None) -> str | None:
    """A query as it is searched for, and as audit may keep it."""
    return _clean(_first_words(query))


def _clean(text: str | None) -> str | None:
    return None if text is None else cast("str", redact(text).value)


def _first_words(query: str | None) -> str | None:
    if query is None or len(query) <= QUERY_CHARACTERS:
        return query
    # Not cut in the middle of a word: it may be a secret that its first half does not give away.
    words = query[:QUERY_CHARACTERS].rsplit(None, 1)
    return words[0] if words else ""
