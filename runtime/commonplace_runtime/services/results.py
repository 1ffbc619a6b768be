"""What is written of a call: memories with their sources, the session's summary, what was spent, and the next state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.observations import (
    Generated,
    Observation,
    SessionSummary,
    bounded,
    content_of,
    metadata_of,
    summary_content,
    summary_metadata,
)
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.retry import Failure
from commonplace_runtime.ids import uuid7
from commonplace_runtime.services.portion import Portion
from commonplace_runtime.store.jobs import Claimed, ClaimedJob, Recent

Price: TypeAlias = Callable[[str, int, int], int]
"""Micro-USD of a model's input and output tokens."""

RECENT_MEMORIES: Final = 8
"""How many of a session's newest memories the next call is shown."""
MAX_DIGESTS: Final = 300
_SUMMARY_TITLE: Final = "Session summary"


def summary_of(state: Mapping[str, Any]) -> SessionSummary | None:
    """The session's running summary, as a call before left it."""
    told = state.get("summary")
    return SessionSummary(**told) if told else None


def without_call(state: Mapping[str, Any], provider: str) -> Generated:
    """What stands for the answer where no call is needed; a summary keeps the name of who wrote it."""
    author = state.get("summaryBy") or {"provider": provider, "model": None}
    return Generated(observations=(), provider=author["provider"], model=author["model"])


def spent_on(answers: Sequence[Generated | Failure], price: Price) -> list[dict[str, Any]]:
    """`spent` of `count_spent`: the calls that a provider bills."""
    return [
        {
            "provider": answer.provider,
            "model": storable(answer.model),
            "inputTokens": answer.input_tokens,
            "outputTokens": answer.output_tokens,
            "costMicrousd": price(answer.model, answer.input_tokens, answer.output_tokens),
        }
        for answer in answers
        if answer.model is not None and answer.input_tokens + answer.output_tokens > 0
    ]


def results_of(
    claimed: Claimed,
    portion: Portion,
    generated: Generated,
    *,
    spent: Sequence[Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """
    What `complete_jobs_v1` takes. A memory belongs to the job of the first event that it cites.

    seconds: how long the worker was busy with it, from the claim on.
    """
    memories: dict[UUID, list[dict[str, Any]]] = {job.id: [] for job in portion.jobs}
    recent = list(claimed.recent)
    for observation in generated.observations:
        # A generator cannot reach beyond its batch: other numbers are dropped, and so is what then cites nothing.
        cited = [
            job
            for number in observation.evidence
            if 1 <= number <= len(portion.stands_for)
            for job in portion.stands_for[number - 1]
        ]
        if not cited:
            continue
        mine = memories[cited[0].id]
        memory = _memory(observation, generated, len(mine), cited, claimed.recent)
        if memory is not None:
            mine.append(memory)
            recent.append(Recent(id=UUID(memory["id"]), title=memory["title"]))
    state = _next_state(claimed, portion, generated, recent)
    if portion.closing is not None and (summary := summary_of(state)) is not None and not state.get("isStored"):
        stored = _summary_memory(portion.closing, summary, generated, state.get("summaryMemory"))
        if stored is not None:
            memories[portion.closing.id].append(stored)
            state |= {"isStored": True, "summaryMemory": stored["id"]}
    return {
        "provider": generated.provider,
        "model": storable(generated.model),
        "spent": list(spent),
        "seconds": seconds,
        "state": state,
        "jobs": [
            {"id": str(job.id), "skipped": portion.skipped.get(job.id), "memories": memories[job.id]}
            for job in portion.jobs
        ],
    }


def _next_state(claimed: Claimed, portion: Portion, generated: Generated, recent: Sequence[Recent]) -> dict[str, Any]:
    state = dict(claimed.state)
    state["digests"] = [*state.get("digests", []), *portion.digests][-MAX_DIGESTS:]
    state["recent"] = [str(memory.id) for memory in recent[-RECENT_MEMORIES:]]
    if generated.summary is not None:
        summary = cast("dict[str, Any]", redact(cast("Json", asdict(generated.summary))).value)
        if summary != state.get("summary"):
            author = {"provider": generated.provider, "model": storable(generated.model)}
            state |= {"summary": summary, "summaryBy": author, "isStored": False}
    return state


def _memory(
    observation: Observation,
    generated: Generated,
    index: int,
    cited: Sequence[ClaimedJob],
    recent: Sequence[Recent],
) -> dict[str, Any] | None:
    """One memory as it is written; None when nothing of it may be stored."""
    observation = bounded(observation)
    clean = _cleaned(
        {
            "kind": observation.kind,
            "title": observation.title,
            "content": content_of(observation),
            "metadata": metadata_of(observation, generated),
            "keywords": list(observation.keywords),
        }
    )
    if clean is None:
        return None
    sources = {str(job.event_id): {"eventId": str(job.event_id), "jobId": str(job.id)} for job in cited}
    return {
        **clean,
        "id": str(uuid7()),
        "index": index,
        "tags": [],
        "replaces": [str(recent[place - 1].id) for place in observation.replaces if 1 <= place <= len(recent)],
        "sources": list(sources.values()),
    }


def _summary_memory(
    job: ClaimedJob, summary: SessionSummary, generated: Generated, before: str | None
) -> dict[str, Any] | None:
    clean = _cleaned(
        {
            "kind": "summary",
            "title": f"{_SUMMARY_TITLE}: {summary.request}"[:120] if summary.request else _SUMMARY_TITLE,
            "content": summary_content(summary),
            "metadata": summary_metadata(summary, generated),
            "keywords": [],
        }
    )
    if clean is None:
        return None
    return {
        **clean,
        "id": str(uuid7()),
        "index": 0,
        "tags": [],
        "replaces": [before] if before else [],
        "sources": [{"sessionId": str(job.source_id), "jobId": str(job.id)}],
    }


def _cleaned(made: Mapping[str, Any]) -> dict[str, Any] | None:
    # The events were cleaned, but a generator unpacks them further, and a model writes what it likes.
    clean = cast("dict[str, Any]", redact(cast("Json", dict(made))).value)
    return clean if clean["content"].strip() and clean["kind"] else None


def storable(model: str | None) -> str | None:
    """A model's name, which a server may have made up, as Postgres takes it."""
    return None if model is None else cast("str", redact(model).value)
