"""What of a claim one call serves: how many of its jobs, which events of them, and what needs no call at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from commonplace_runtime.domain.condense import Condensed
from commonplace_runtime.domain.observations import SourceEvent
from commonplace_runtime.store.jobs import ClaimedJob

SUMMARY: Final = "session_summary"


@dataclass(frozen=True, kw_only=True)
class Portion:
    """
    The first jobs of a claim, as many as one call serves.

    events: what is sent, in order. stands_for: by place, the jobs whose events each of them is. skipped: why a job
    needs no call. digests: of the jobs' events, oldest first. closing: the job that wants the session's summary, the
    newest of them.
    """

    jobs: Sequence[ClaimedJob]
    events: Sequence[SourceEvent]
    stands_for: Sequence[Sequence[ClaimedJob]]
    skipped: Mapping[UUID, str]
    digests: Sequence[str]
    closing: ClaimedJob | None


def portion_of(jobs: Sequence[ClaimedJob], condensed: Condensed, size: int) -> Portion:
    """
    The jobs before the first one whose event would be number `size` + 1.

    condensed: of the jobs' events; its places count the jobs that have one.
    """
    kept = condensed.kept
    with_event = [job for job in jobs if job.event is not None]
    taken = list(jobs)
    if size < len(kept):
        taken = taken[: taken.index(with_event[kept[size].places[0]])]
    ours = {job.id for job in taken}
    places = {place: job for place, job in enumerate(with_event) if job.id in ours}
    sent = [one for one in kept[:size] if one.places[0] in places]
    closing = [job for job in taken if job.source_type == SUMMARY]
    skipped = {places[place].id: reason for place, reason in condensed.dropped.items() if place in places}
    skipped |= {job.id: "told by a later summary" for job in closing[:-1]}
    return Portion(
        jobs=taken,
        events=[one.event for one in sent],
        stands_for=[[places[place] for place in one.places if place in places] for one in sent],
        skipped=skipped,
        digests=[condensed.remembered[place] for place in sorted(places) if place in condensed.remembered],
        closing=closing[-1] if closing else None,
    )
