"""
Which events of a session are worth a model's call: noise goes, what repeats stands once, runs are told as one.

Careful on one side only: an event is left out when its kind says that nobody will ask for it again, or when the same
was told before. Words of people and agents, changes of files and state, and failures are never left out.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from commonplace_runtime.domain.commands import Outcome, command_of, is_noise, outcome_of, writes
from commonplace_runtime.domain.known_files import KnownFiles, digest_of, of_file, whole_file
from commonplace_runtime.domain.observations import SourceEvent
from commonplace_runtime.domain.payloads import (
    COMMAND_TOOLS,
    READ_TOOLS,
    SEARCH_TOOLS,
    WRITE_TOOLS,
    ToolUse,
    as_mapping,
    text_of,
    tool_use,
)

ROUTINE_TOOLS: Final = frozenset(
    {"listmcpresourcestool", "slashcommand", "skill", "todowrite", "todoread", "update_plan", "taskcreate",
     "taskupdate", "tasklist", "taskget", "ls", "list_dir", "list_directory", "glob", "file_search", "toolsearch",
     "enterplanmode", "killshell", "killbash"}
)  # fmt: skip
"""
Tools that list, look up or keep the agent's own books: their answer is in the repository or gone in a minute.

claude-mem's skip list, but for AskUserQuestion: its answer is what a person decided.
"""
_LATER_OUTPUT: Final = frozenset({"bashoutput", "taskoutput"})
_WEB_TOOLS: Final = frozenset({"webfetch", "websearch", "web_fetch", "web_search"})
_QUESTION_TOOLS: Final = frozenset({"askuserquestion"})

_ENVELOPE: Final = frozenset(
    {"cwd", "platformSource", "platform_source", "agentId", "agentType", "agent_id", "agent_type", "sessionId",
     "session_id", "transcript_path", "hook_event_name", "permission_mode", "tool_use_id", "toolUseId", "timestamp"}
)  # fmt: skip
"""Fields that hooks put around what happened; alone they tell nothing."""
_READING_TOOL = re.compile(r"(?:list|search|find|get|read|fetch|status|lookup)(?:[_-]|$)", re.IGNORECASE)
"""By the first word of its name, after that of its server. A query may be an UPDATE."""
_SAYS_NOTHING = re.compile(
    r"\W*(?:ok(?:ay)?|done|true|false|yes|none|null|success(?:ful(?:ly)?)?|no (?:matches|files|results)(?: found)?"
    r"|no output|\(no (?:content|output)\)|(?:tool|command) ran without output(?: or errors?)?)?\W*",
    re.IGNORECASE,
)
_DURATION = re.compile(r"\b(?:in )?[\d.]+ ?(?:s|ms|m|seconds?)\b")
_SEEN: Final = "seen before"
MAX_RUN: Final = 6
"""Events that are shown as one: few enough that a memory that cites it still says where it was seen."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """
    An event to be sent, and the places (from 0, ascending) of those it stands for: its own, its equals' and those of
    its run.
    """

    event: SourceEvent
    places: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Condensed:
    """
    What is left of a claim's events.

    kept: in order. dropped: the reason by place. Every place is either dropped or stood for by exactly one kept event.
    remembered: by place, the digest under which its content is known.
    """

    kept: Sequence[Kept]
    dropped: Mapping[int, str]
    remembered: Mapping[int, str] = field(default_factory=dict)

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of what was told here, newest last: `seen` of the session's next `condense` ends with them."""
        newest = {digest: place for place, digest in sorted(self.remembered.items())}
        return tuple(sorted(newest, key=newest.__getitem__))


def condense(events: Sequence[SourceEvent], seen: Sequence[str], *, fold_runs: bool = False) -> Condensed:
    """
    Tell apart what a model should read. `events`: one session's, in order. `seen`: digests of what its earlier
    batches told, newest last.

    fold_runs: between two turning points (words, failures, commands that change how things stand), show what looked
    around and what changed files as one event.
    Never raises; an event that is not understood is kept.
    """
    memory = _Memory(seen)
    dropped: dict[int, str] = {}
    remembered: dict[int, str] = {}
    left: list[_Told] = []
    for place, event in enumerate(events):
        told = _told(place, event, memory)
        reason = _reason(told, memory)
        if reason is None:
            left.append(told)
        else:
            dropped[place] = reason
        if digest := memory.take(told, sent=reason in (None, _SEEN)):
            remembered[place] = digest
    return Condensed(kept=_folded(left, max_run=MAX_RUN if fold_runs else 1), dropped=dropped, remembered=remembered)


class _Memory:
    """What was told so far: digests with their order, texts of files, and which commands failed since."""

    def __init__(self, seen: Sequence[str]) -> None:
        self._order = {digest: order for order, digest in enumerate(seen)}
        self._files = KnownFiles(self._order.keys())
        self._failures: Counter[str] = Counter()

    def failures(self, run: str) -> int:
        """How often a command failed in this batch."""
        return self._failures[run]

    def knows(self, told: "_Told") -> bool:
        """Whether the same was told before, and the command did not fail since: that it works again is news."""
        if told.in_order:
            return False
        if told.use is not None and self._files.show(told.use, told.tool):
            return True
        return told.digest in self._order and not told.works_again

    def works_again(self, run: str, digest: str) -> bool:
        """Whether a command failed since this was told of it, if ever."""
        failed_at = self._order.get(_failure(run), -1)
        return self._failures[run] > 0 or failed_at > self._order.get(digest, -1)

    def take(self, told: "_Told", *, sent: bool) -> str:
        """Take note of an event; gives the digest to remember for it, empty where there is none."""
        if told.failed:
            self._failures[told.run] += 1
            return _failure(told.run) if told.run else ""
        if told.use is not None and (written := self._files.after(told.use, told.tool)):
            self._order[written] = len(self._order)
            return written
        return told.digest if sent and not told.in_order else ""


def _failure(run: str) -> str:
    return digest_of(["failed", run])


@dataclass(frozen=True, kw_only=True)
class _Told:
    """
    One event as it is looked at. in_order: words and changes, which mean something else where they stand elsewhere.
    run: the command and where it ran, empty for what is none. failures: how often that failed in this batch before.
    works_again: it failed since it last ended like this. outcome: how it ended.
    """

    place: int
    event: SourceEvent
    use: ToolUse | None
    tool: str
    run: str
    failures: int
    works_again: bool
    outcome: Outcome | None
    failed: bool
    in_order: bool
    digest: str


def _told(place: int, event: SourceEvent, memory: _Memory) -> _Told:
    use = tool_use(event.payload)
    tool = use.name.lower() if use else ""
    outcome = None
    if use is not None and tool in COMMAND_TOOLS | _LATER_OUTPUT:
        outcome = outcome_of(use.output, failed=use.failed(), exit_code=None)
    command = command_of(use) if use is not None and tool in COMMAND_TOOLS else ""
    run = " ".join([use.cwd, *command.split()]) if use is not None and command else ""
    digest = _digest(event, use, run, outcome)
    return _Told(
        place=place,
        event=event,
        use=use,
        tool=tool,
        run=run,
        failures=memory.failures(run) if run else 0,
        works_again=bool(run) and memory.works_again(run, digest),
        outcome=outcome,
        failed=outcome.failed if outcome else use is not None and use.failed(),
        in_order=use is None or tool in WRITE_TOOLS or writes(command),
        digest=digest,
    )


def _digest(event: SourceEvent, use: ToolUse | None, run: str, outcome: Outcome | None) -> str:
    """Short digest of what happened, without what differs between two tellings of the same; empty: not comparable."""
    said: object
    if use is None:
        said = [event.event_type, event.payload]
    elif use.name.lower() in READ_TOOLS:
        whole = whole_file(use)
        said = ["part", use.path(), use.response] if whole is None else of_file(use.path(), whole)
    elif run:
        # Tests that pass say nothing else by taking longer or being more.
        passed = outcome is not None and outcome.is_test and not outcome.failed
        said = ["passed", run] if passed else ["ran", run, use.response]
    else:
        said = [use.name, dict(use.input), use.response]
    return digest_of(said)


def _reason(told: _Told, memory: _Memory) -> str | None:
    """Why an event is not sent, or None."""
    use = told.use
    if use is None:
        return None if _has_content(told.event.payload) else "nothing left"
    if told.failed:
        return None
    for why, holds in _RULES:
        if holds(told, use):
            return why
    return _SEEN if memory.knows(told) else None


def _is_routine_tool(told: _Told, use: ToolUse) -> bool:
    return told.tool in ROUTINE_TOOLS


def _is_routine_command(told: _Told, use: ToolUse) -> bool:
    return told.tool in COMMAND_TOOLS and is_noise(command_of(use), use.output, failed=told.failed)


def _is_listing(told: _Told, use: ToolUse) -> bool:
    """A search that named files and showed nothing of them."""
    answer = as_mapping(use.response)
    return told.tool in SEARCH_TOOLS and "filenames" in answer and not str(answer.get("content") or "").strip()


def _is_poll(told: _Told, use: ToolUse) -> bool:
    """A look at a command that runs on; the verdict that it ends with is kept."""
    return told.tool in _LATER_OUTPUT and not (told.outcome and told.outcome.verdict)


def _is_unanswered(told: _Told, use: ToolUse) -> bool:
    answer = as_mapping(use.response)
    return told.tool in _QUESTION_TOOLS and not (answer.get("answers") or "answer" in text_of(use.response).lower())


def _is_empty(told: _Told, use: ToolUse) -> bool:
    """A tool that only reads, and found nothing."""
    if told.tool in READ_TOOLS and isinstance(file := as_mapping(use.response).get("file"), Mapping):
        return not _has_content({key: item for key, item in file.items() if key in ("content", "base64", "cells")})
    if told.in_order or not _only_reads(use):
        return False
    text = use.output
    return not _has_content(use.response) or bool(text and len(text) < 80 and _SAYS_NOTHING.fullmatch(text))


def _only_reads(use: ToolUse) -> bool:
    """Whether a tool that runs no commands changes nothing. In doubt it does."""
    is_known = use.name.lower() in READ_TOOLS | SEARCH_TOOLS | _WEB_TOOLS
    without_server = use.name.rpartition("__")[2].rpartition(".")[2]
    return is_known or _READING_TOOL.match(without_server) is not None


def _has_content(value: object) -> bool:
    """Whether a value says anything: a text that is not blank, a number, a yes or no."""
    waiting: list[object] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += [inner for key, inner in item.items() if key not in _ENVELOPE]
        elif isinstance(item, list):
            waiting += item
        elif item is not None and not (isinstance(item, str) and not item.strip()):
            return True
    return False


def _is_silent(told: _Told, use: ToolUse) -> bool:
    """Neither asked nor answered anything: what is left of a tool use that was private throughout."""
    return not _has_content(dict(use.input)) and not _has_content(use.response)


_RULES: Final[Sequence[tuple[str, Callable[[_Told, ToolUse], bool]]]] = (
    ("a tool that lists or keeps books", _is_routine_tool),
    ("a routine command", _is_routine_command),
    ("a list of files", _is_listing),
    ("a look at something still running", _is_poll),
    ("a question without its answer", _is_unanswered),
    ("an empty result", _is_empty),
    ("nothing left", _is_silent),
)


def _folded(told: Sequence[_Told], *, max_run: int) -> Sequence[Kept]:
    """One event for each group of those that say the same, and for each run of at most `max_run` of such groups."""
    groups = _equals(told)
    runs: list[list[Sequence[_Told]]] = []
    open_kind = ""
    for one in told:
        kind = _run_kind(one)
        if one.place in groups:
            if not kind or kind != open_kind or len(runs[-1]) == max_run:
                runs.append([])
            runs[-1].append(groups[one.place])
            open_kind = kind
        elif not kind:
            # Told with its equal, and a turning point all the same.
            open_kind = ""
    return [_kept(run) for run in runs]


def _kept(run: Sequence[Sequence[_Told]]) -> Kept:
    events = [group[0].event for group in run]
    places = sorted(one.place for group in run for one in group)
    event = events[0] if len(events) == 1 else replace(events[0], parts=tuple(events))
    return Kept(event=event, places=tuple(places))


def _run_kind(one: _Told) -> str:
    """Neighbours of one kind are a run: changes of files, with the looks between them. Empty for turning points."""
    use = one.use
    if use is None or one.failed or one.works_again:
        return ""
    is_look = not one.in_order and (one.run or _only_reads(use))
    return "work" if is_look or one.tool in WRITE_TOOLS else ""


def _equals(told: Sequence[_Told]) -> Mapping[int, Sequence[_Told]]:
    """Those that say the same, by the place of the first of them."""
    groups: dict[object, list[_Told]] = {}
    before: _Told | None = None
    before_key: object = None
    for one in told:
        key: object
        if one.in_order:
            # The same words or change later on mean something else: only neighbours are one.
            twin = before is not None and bool(one.digest) and before.digest == one.digest
            key = before_key if twin else ("at", one.place)
        else:
            key = _fold_key(one)
        groups.setdefault(key, []).append(one)
        before, before_key = one, key
    return {group[0].place: group for group in groups.values()}


def _fold_key(one: _Told) -> tuple[object, ...]:
    """Runs of a command that failed alike say the same; all else does only where it is the same, and nothing failed."""
    if one.failed and one.outcome and one.outcome.errors:
        return (one.run, *(_DURATION.sub("", text) for text in (one.outcome.verdict, *one.outcome.errors)))
    return ("same", one.digest, one.failures) if one.digest else ("at", one.place)
