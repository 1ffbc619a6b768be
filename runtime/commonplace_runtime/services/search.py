"""Recall: what a team remembers, by words or by age. The ranking itself stands behind `store/memories.py`."""

from dataclasses import replace
from typing import cast

from commonplace_runtime.domain.models import Principal, Recall
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.wire import ObservationRow
from commonplace_runtime.store import memories
from commonplace_runtime.store.pool import Pool


async def recall_memories(pool: Pool, principal: Principal, wanted: Recall, *, request_id: str) -> list[ObservationRow]:
    """
    The memories that answer `wanted`, best first, with their sources; the read is audited.

    The query is cleaned like an event, for the audit keeps it: what was private or secret was never stored, so it
    could not be found. Raises NotPermitted, ProjectMissing, Unavailable.
    """
    if wanted.query is not None:
        wanted = replace(wanted, query=cast("str", redact(wanted.query).value))
    if wanted.project is not None:
        wanted = replace(wanted, project=cast("str", redact(wanted.project).value))
    return await memories.recall(pool, principal, wanted, request_id=request_id)
