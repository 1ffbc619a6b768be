"""
Observations by rule, without a model: what was read, changed, run, said and decided.

Every rule keeps identifiers and wording as they were, because somebody will search for them, and names itself in the
observation's metadata. What nobody will ask for again (listings, todo tools, empty results) gives nothing.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from commonplace_runtime.domain import prose
from commonplace_runtime.domain.commands import bare_command, command_of, is_noise, outcome_of
from commonplace_runtime.domain.condense import ROUTINE_TOOLS
from commonplace_runtime.domain.diffs import diff_of
from commonplace_runtime.domain.observations import (
    BODY_CHARACTERS,
    Observation,
    SourceEvent,
    bounded,
    clip,
    head_and_tail,
)
from commonplace_runtime.domain.payloads import ToolUse, as_mapping, first_text, prose_of, strings_of, text_of, tool_use

Made = Observation | None

_DEFINITION = re.compile(
    r"^[ \t]*((?:(?:export|default|public|private|async|static|pub)[ \t]+)*"
    r"(?:class|def|function|func|fn|interface|struct|enum|type|trait|impl|module|"
    r"CREATE (?:TABLE|FUNCTION|INDEX|POLICY))"
    r"[ \t]+[\w.\"]+.*|#{1,4} \S.*)$",
    re.MULTILINE | re.IGNORECASE,
)
_LINE_NUMBER = re.compile(r"^[ \t]*\d+[→\t]", re.MULTILINE)
_MIN_PROSE_WORDS: Final = 4
_KIND_OF_CUE: Final[Mapping[str, str]] = {
    "decision": "decision", "convention": "convention", "todo": "todo", "bugfix": "bugfix", "note": "discovery",
    "fact": "discovery",
}  # fmt: skip


def _base_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _definitions(text: str, limit: int = 8) -> list[str]:
    return [clip(match.strip().rstrip("{: "), 120) for match in _DEFINITION.findall(text)[:limit]]


def _edit(use: ToolUse, number: int) -> Made:
    path = use.path()
    diff = diff_of(use)
    if not path or diff is None or use.failed():
        return None
    first = next(iter(diff.come or diff.gone))
    verb = "Changed" if diff.gone and diff.come else "Added to" if diff.come else "Removed from"
    return Observation(
        kind="change",
        title=f"{verb} {_base_name(path)}: {first}",
        narrative=f"{verb} {path}.\n{head_and_tail(diff.text, BODY_CHARACTERS - 200)}",
        evidence=(number,),
        concepts=("what-changed",),
        files_modified=(path,),
        keywords=prose.keywords("\n".join([*diff.come, *diff.gone])),
        extra={"rule": "edit"},
    )


def _write(use: ToolUse, number: int) -> Made:
    path, text = use.path(), first_text(use.input, "content", "contents", "file_text", "new_source", "code_edit")
    if not path or not text or use.failed():
        return None
    created = as_mapping(use.response).get("type") != "update"
    symbols = _definitions(text)
    about = symbols[0] if symbols else next(iter(prose.sentences(text)), text)
    return Observation(
        kind="change",
        title=f"{'Created' if created else 'Rewrote'} {_base_name(path)}: {about}",
        narrative=f"{'Created' if created else 'Rewrote'} {path}.\n{head_and_tail(text, BODY_CHARACTERS - 200)}",
        evidence=(number,),
        facts=symbols,
        concepts=("what-changed",),
        files_modified=(path,),
        keywords=prose.keywords(text),
        extra={"rule": "write"},
    )


def _patch(use: ToolUse, number: int) -> Made:
    text = first_text(use.input, "input", "patch", "diff", "command")
    paths = re.findall(r"^\*\*\* (?:Update|Add|Delete) File: (.+)$|^\+\+\+ (?:b/)?(\S+)", text, re.MULTILINE)
    files = [one or other for one, other in paths]
    if not files or use.failed():
        return None
    changed = [
        line
        for line in text.splitlines()
        if line[:1] in "+-" and not line.startswith(("+++", "---")) and line[1:].strip()
    ]
    first = next((line[1:].strip() for line in changed if line.startswith("+")), "")
    return Observation(
        kind="change",
        title=f"Changed {', '.join(_base_name(file) for file in files[:3])}: {first}",
        narrative=f"Changed {', '.join(files)}.\n{head_and_tail(chr(10).join(changed), BODY_CHARACTERS - 300)}",
        evidence=(number,),
        concepts=("what-changed",),
        files_modified=files,
        keywords=prose.keywords("\n".join(changed)),
        extra={"rule": "patch"},
    )


def _read(use: ToolUse, number: int) -> Made:
    path = use.path()
    answer = as_mapping(use.response)
    text = first_text(as_mapping(answer.get("file")), "content") or use.output
    text = _LINE_NUMBER.sub("", text).strip()
    if not path or len(text) < 20 or use.failed():
        return None
    symbols = _definitions(text)
    return Observation(
        kind="discovery",
        title=f"Read {_base_name(path)}: {'; '.join(symbols[:3]) or next(iter(prose.sentences(text)), '')}",
        narrative=f"{path} holds:\n{head_and_tail(text, BODY_CHARACTERS - 200)}",
        evidence=(number,),
        facts=symbols,
        concepts=("how-it-works",),
        files_read=(path,),
        keywords=prose.keywords(text),
        extra={"rule": "read"},
    )


def _command(use: ToolUse, number: int) -> Made:
    command = command_of(use)
    output, failed = use.output.strip(), use.failed()
    if is_noise(command, output, failed=failed):
        return None
    outcome = outcome_of(output, failed=failed, exit_code=use.exit_code())
    described = first_text(use.input, "description")
    title = f"`{clip(bare_command(command), 80)}`" + (
        f": {outcome.verdict}" if outcome.verdict else f": {described}" if described else ""
    )
    parts = [
        f"Ran `{clip(command, 400)}`{f' ({described})' if described else ''}.",
        outcome.verdict,
        head_and_tail(output, 800),
    ]
    return Observation(
        kind="discovery",
        title=title,
        narrative="\n".join(part for part in parts if part),
        evidence=(number,),
        facts=outcome.errors,
        concepts=("gotcha",) if outcome.failed else ("how-it-works",),
        keywords=prose.keywords(f"{command}\n{chr(10).join(outcome.errors)}\n{output}"),
        extra={"rule": "command", "failed": outcome.failed},
    )


def _search(use: ToolUse, number: int) -> Made:
    wanted = first_text(use.input, "pattern", "query", "regex")
    answer = as_mapping(use.response)
    files = strings_of(answer.get("filenames"), 20)
    text = "\n".join(files) or use.output.strip()
    if not wanted or not text or answer.get("numFiles") == 0 or text.lower().startswith("no "):
        return None
    return Observation(
        kind="discovery",
        title=f"Searched for {wanted}" + (f": {len(files)} files" if files else ""),
        narrative=f"`{clip(wanted, 200)}` occurs in:\n{head_and_tail(text, 900)}",
        evidence=(number,),
        concepts=("how-it-works",),
        files_read=files,
        keywords=prose.keywords(f"{wanted}\n{text}"),
        extra={"rule": "search"},
    )


def _answer(use: ToolUse, number: int) -> Made:
    """Web pages, sub-agents and tools we do not know: what was asked, and the text that came back."""
    text = use.output.strip()
    asked = first_text(
        use.input, "description", "query", "url", "prompt", "question", "title", "name", "command"
    ) or text_of(use.input)
    if len(text.split()) < _MIN_PROSE_WORDS or use.failed():
        return None
    tool = use.name.removeprefix("mcp__").replace("__", " ")
    found = prose.findings(text)
    return Observation(
        kind="discovery",
        title=f"{tool}: {asked or next(iter(prose.sentences(text)), text)}",
        narrative=f"{tool} was asked: {clip(asked, 300)}\nAnswer: {head_and_tail(text, BODY_CHARACTERS - 400)}",
        evidence=(number,),
        facts=[finding.text for finding in found],
        keywords=prose.keywords(f"{asked}\n{text}"),
        extra={"rule": "answer", "tool": use.name},
    )


_TOOLS: Final[Mapping[str, Callable[[ToolUse, int], Made]]] = {
    "edit": _edit, "multiedit": _edit, "notebookedit": _edit, "str_replace": _edit, "search_replace": _edit,
    "edit_file": _edit, "str_replace_based_edit_tool": _edit, "write": _write, "write_file": _write,
    "create_file": _write, "apply_patch": _patch, "read": _read, "read_file": _read, "notebookread": _read,
    "view": _read,
    "bash": _command, "shell": _command, "local_shell": _command, "exec_command": _command,
    "run_terminal_cmd": _command, "run_shell_command": _command, "powershell": _command, "grep": _search,
    "search": _search, "grep_search": _search, "codebase_search": _search, "search_file_content": _search,
}  # fmt: skip


def _prose(event: SourceEvent, number: int) -> Made:
    text = prose_of(event.payload)
    if len(text.split()) < _MIN_PROSE_WORDS:
        return None
    found = prose.findings(text)
    asked = "prompt" in event.event_type.lower()
    lead = found[0] if found and not (asked and found[0].cue == "fact") else None
    kind = "request" if asked and lead is None else _KIND_OF_CUE[lead.cue] if lead else "discovery"
    narrative = head_and_tail(text, BODY_CHARACTERS)
    return Observation(
        kind=kind,
        title=lead.text if lead else next(iter(prose.sentences(text)), text),
        narrative=narrative,
        evidence=(number,),
        # Sentences that the shortened narrative still shows need not stand twice.
        facts=[finding.text for finding in found if finding.text not in " ".join(narrative.split())],
        concepts=("why-it-exists",) if kind == "decision" else (),
        keywords=prose.keywords(text),
        extra={"rule": "prose", "cues": sorted({finding.cue for finding in found})},
    )


def _structured(event: SourceEvent, number: int) -> Made:
    """An event that no hook of ours sends: its fields, as they are."""
    text = text_of(event.payload).strip()
    if len(text.split()) < _MIN_PROSE_WORDS:
        return None
    return Observation(
        kind="discovery",
        title=f"{event.event_type}: {next(iter(prose.sentences(text)), text)}",
        narrative=head_and_tail(text, BODY_CHARACTERS),
        evidence=(number,),
        keywords=prose.keywords(text),
        extra={"rule": "fields"},
    )


def observe(event: SourceEvent, number: int) -> Made:
    """What the rules make of one event, which is number `number` of its batch; None when it is not worth keeping."""
    use = tool_use(event.payload)
    if use is not None:
        name = use.name.lower()
        if name in ROUTINE_TOOLS:
            return None
        made = _TOOLS.get(name, _answer)(use, number)
    else:
        made = _prose(event, number) if prose_of(event.payload) else _structured(event, number)
    return bounded(made) if made is not None else None
