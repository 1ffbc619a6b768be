"""
One event as a model reads it: a numbered, escaped block that shows what mattered and leaves out bulk.

Known tools are shown as a person would see them (a command and its output, a diff), everything else as compact JSON.
Every text is redacted whole before anything is cut: half a secret matches no pattern.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Final

from commonplace_runtime.domain.commands import command_of, outcome_of
from commonplace_runtime.domain.diffs import changed_lines, diff_of
from commonplace_runtime.domain.observations import SourceEvent, clip, head_and_tail
from commonplace_runtime.domain.payloads import (
    COMMAND_TOOLS,
    READ_TOOLS,
    SEARCH_TOOLS,
    WRITE_TOOLS,
    ToolUse,
    as_mapping,
    first_text,
    prose_of,
    text_of,
    tool_use,
)

EVENT_CHARACTERS: Final = 6000
"""About 2,000 tokens of code; what a person wrote may take all of it."""
READ_CHARACTERS: Final = 2400
"""A file can be read again; what its beginning and end do not tell, an edit or a message will."""
OUTPUT_CHARACTERS: Final = 2000
FAILURE_CHARACTERS: Final = 4000
CHANGE_CHARACTERS: Final = 4000
_STRING_CHARACTERS: Final = 3000
_COMMAND_CHARACTERS: Final = 1200
_CUT_CHARACTERS: Final = 50
"""What saying that something was cut takes."""
_LIST_ITEMS: Final = 200
_DEPTH: Final = 60

_BULK: Final = frozenset({"originalFile", "structuredPatch", "original_file", "structured_patch"})
_ENVELOPE: Final = frozenset({"cwd", "platformSource", "platform_source", "transcript_path", "permission_mode"})
# Only at the start of a run, or a run that is too short would be read once for each of its letters.
_ENCODED = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{400,}+")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_BINARY_SHARE: Final = 0.1
_LINE_NUMBER = re.compile(r"^[ \t]*\d+[→\t]", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n")


def render_event(number: int, event: SourceEvent, redact: Callable[[str], str]) -> str:
    """One event as a block of at most about EVENT_CHARACTERS; `number` is how an answer cites it."""
    payload = _cleaned(event.payload, redact)
    use = tool_use(payload)
    attributes = {"number": str(number), "type": event.event_type[:100]}
    if event.parts:
        attributes["shows"] = f"{len(event.parts)} events"
        body = _together([_cleaned(part.payload, redact) for part in event.parts])
    elif use is not None:
        body = _tool(use)
        attributes |= {"tool": use.name[:100], "path": clip(use.path(), 300)}
    else:
        body = _words(payload)
    attributes["time"] = event.occurred_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
    named = " ".join(f'{name}="{_attribute(value)}"' for name, value in attributes.items() if value)
    body = escaped(head_and_tail(_BLANK_LINES.sub("\n\n", body), EVENT_CHARACTERS))
    return f"<event {named}>\n{body}\n</event>"


def escaped(text: str) -> str:
    """`text` as it may stand between the tags of a prompt. Quotation marks stay: their escapes cost a token each."""
    # A lone surrogate cannot be sent as UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _attribute(text: str) -> str:
    return escaped(" ".join(text.split())).replace('"', "&quot;")


def _cleaned(value: object, redact: Callable[[str], str], depth: int = _DEPTH) -> object:
    """The value without secrets, encoded data and what lies too deep."""
    if isinstance(value, str):
        return _readable(redact(value))
    if isinstance(value, Mapping):
        return {str(key): _cleaned(item, redact, depth - 1) for key, item in value.items()} if depth else None
    if isinstance(value, list):
        return [_cleaned(item, redact, depth - 1) for item in value[:_LIST_ITEMS]] if depth else None
    return value


def _readable(text: str) -> str:
    if len(_UNPRINTABLE.findall(text, 0, 4000)) > _BINARY_SHARE * min(len(text), 4000):
        return "[binary data left out]"
    return _ENCODED.sub("[encoded data left out]", text)


def _tool(use: ToolUse) -> str:
    tool = use.name.lower()
    if tool in COMMAND_TOOLS:
        return _command(use)
    if tool in READ_TOOLS:
        return _read(use)
    if tool in WRITE_TOOLS:
        return _change(use)
    if tool in SEARCH_TOOLS:
        return f"{clip(_compact(use.input), 400)}\n{head_and_tail(use.output.strip(), OUTPUT_CHARACTERS)}"
    return f"{_compact(use.input)}\n-> {_answer(use)}"


def _together(payloads: Sequence[object]) -> str:
    """An entry for each; where there is too little room for all, the long ones have equal parts of it."""
    entries = [_entry(payload) for payload in payloads]
    limit = _limit_each([len(entry) for entry in entries], EVENT_CHARACTERS - _CUT_CHARACTERS * len(entries))
    return "\n".join(head_and_tail(entry, limit) for entry in entries)


def _entry(payload: object) -> str:
    use = tool_use(payload)
    if use is None:
        return f"- {_words(payload)}"
    named = f"- {use.name[:100]} {clip(use.path(), 200)}".rstrip()
    told = _BLANK_LINES.sub("\n\n", _tool(use))
    return f"{named}\n{told}"


def _limit_each(lengths: Sequence[int], room: int) -> int:
    """How long each may be for all to fit `room`: what the short ones leave is the long ones'."""
    for count, length in zip(range(len(lengths), 0, -1), sorted(lengths), strict=True):
        if length * count > room:
            return room // count
        room -= length
    return max(lengths)


def _answer(use: ToolUse) -> str:
    text = use.output if isinstance(use.response, str | list) else ""
    return head_and_tail(text.strip() or _compact(use.response), FAILURE_CHARACTERS if use.failed() else 3000)


def _command(use: ToolUse) -> str:
    command, output = command_of(use).strip(), use.output.strip()
    outcome = outcome_of(output, failed=use.failed(), exit_code=use.exit_code())
    described = first_text(use.input, "description")
    status = use.exit_code()
    lines = [
        f"$ {head_and_tail(command, _COMMAND_CHARACTERS)}",
        f"# {clip(described, 200)}" if described and described != command else "",
        f"exit status {status}" if status else "failed" if use.failed() else "",
        _failure(output, outcome.errors) if outcome.failed else head_and_tail(output, OUTPUT_CHARACTERS),
    ]
    return "\n".join(line for line in lines if line)


def _failure(output: str, errors: Sequence[str]) -> str:
    """What went wrong stands at the end, and in lines that name an error."""
    if len(output) <= FAILURE_CHARACTERS:
        return output
    head, tail = output[: FAILURE_CHARACTERS // 8], output[-FAILURE_CHARACTERS // 2 :]
    between = "\n".join(error for error in errors if error not in tail)
    left_out = len(output) - len(head) - len(tail)
    return f"{head}\n… {left_out} characters left out; among them:\n{between}\n…\n{tail}"


def _read(use: ToolUse) -> str:
    text = first_text(as_mapping(as_mapping(use.response).get("file")), "content") or use.output
    return head_and_tail(_LINE_NUMBER.sub("", text).strip(), READ_CHARACTERS)


def _change(use: ToolUse) -> str:
    failed = f"failed: {clip(use.output, 600)}\n" if use.failed() else ""
    diff = diff_of(use)
    text = diff.text if diff is not None else _written(use)
    return failed + head_and_tail(text or _compact(use.input), CHANGE_CHARACTERS)


def _written(use: ToolUse) -> str:
    """A whole file: what became of its original where that is told, else its text."""
    text = first_text(use.input, "content", "contents", "file_text", "new_source", "code_edit", "input", "patch")
    original = first_text(as_mapping(use.response), "originalFile", "original_file")
    if not original:
        return text
    gone, come = changed_lines(original.splitlines(), text.splitlines())
    return "\n".join([*(f"- {line}" for line in gone), *(f"+ {line}" for line in come)]) or text


def _words(payload: object) -> str:
    if isinstance(payload, str):
        return payload
    text = prose_of(payload)
    # Fields beside the message may say as much.
    beside = {
        key: item for key, item in as_mapping(payload).items() if key not in _ENVELOPE and text_of(item).strip() != text
    }
    return "\n".join(part for part in (text, _compact(beside or ("" if text else payload))) if part)


def _compact(value: object) -> str:
    trimmed = _trimmed(value)
    if trimmed in ("", None, {}, []):
        return ""
    return trimmed if isinstance(trimmed, str) else json.dumps(trimmed, ensure_ascii=False, separators=(",", ":"))


def _trimmed(value: object, depth: int = _DEPTH) -> object:
    if isinstance(value, str):
        return head_and_tail(value, _STRING_CHARACTERS)
    # What was JSON inside a string comes with a depth of its own.
    if isinstance(value, Mapping):
        return {key: _trimmed(item, depth - 1) for key, item in value.items() if key not in _BULK} if depth else None
    if isinstance(value, list):
        return [_trimmed(item, depth - 1) for item in value[:_LIST_ITEMS]] if depth else None
    return value
