"""A session's summary by rule: the last wish, the files looked at, and the titles of what was found, done and left."""

from collections.abc import Sequence
from typing import Final

from commonplace_runtime.domain.extraction import SUMMARY_CHARACTERS, PromptBatch
from commonplace_runtime.domain.observations import Observation, SessionSummary, SourceEvent, clip, unique
from commonplace_runtime.domain.payloads import prose_of, tool_use

_BETWEEN: Final = "; "
_MIN_REQUEST_WORDS: Final = 4
_LEARNED: Final = frozenset({"decision", "convention", "discovery"})
_COMPLETED: Final = frozenset({"change", "bugfix", "feature", "refactor"})


def summarise(batch: PromptBatch, observations: Sequence[Observation]) -> SessionSummary | None:
    """
    The session's summary with what this batch adds; None where it adds nothing, unless the session ends.

    observations: what the rules made of the batch. Never more than SUMMARY_CHARACTERS a field: the oldest goes first.
    """
    before = batch.summary or SessionSummary()
    looked = [path.rsplit("/", 1)[-1] for one in observations for path in one.files_read]
    said = [one for one in observations if one.extra.get("rule") == "prose"]
    after = SessionSummary(
        request=clip(_request(batch.events) or batch.request or before.request, SUMMARY_CHARACTERS),
        investigated=_appended(before.investigated, looked),
        learned=_appended(before.learned, [one.title for one in said if one.kind in _LEARNED]),
        completed=_appended(before.completed, [one.title for one in observations if _completes(one)]),
        # What was left to do an hour ago may be done: the newest list counts.
        next_steps=_appended("", [one.title for one in observations if one.kind == "todo"]) or before.next_steps,
        notes=before.notes,
    )
    if after == SessionSummary() or (after == batch.summary and not batch.closes_session):
        return None
    return after


def _completes(one: Observation) -> bool:
    commits = one.title.startswith("`git commit") and not one.extra.get("failed")
    return one.kind in _COMPLETED or commits


def _request(events: Sequence[SourceEvent]) -> str:
    """The last prompt that is more than a nod."""
    for event in reversed(events):
        if "prompt" in event.event_type.lower() and tool_use(event.payload) is None:
            words = prose_of(event.payload).split()
            if len(words) >= _MIN_REQUEST_WORDS:
                return " ".join(words)
    return ""


def _appended(before: str, new: Sequence[str]) -> str:
    parts = list(unique([*before.split(_BETWEEN), *new], 1000))
    while len(parts) > 1 and len(_BETWEEN.join(parts)) > SUMMARY_CHARACTERS:
        del parts[0]
    return clip(_BETWEEN.join(parts), SUMMARY_CHARACTERS)
