"""Reads the payloads that agents' hooks send, whose shapes differ by tool, agent and version."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MAX_TEXT: Final = 60_000

READ_TOOLS: Final = frozenset({"read", "read_file", "notebookread", "view"})
WRITE_TOOLS: Final = frozenset(
    {"edit", "multiedit", "notebookedit", "str_replace", "search_replace", "edit_file", "str_replace_based_edit_tool",
     "write", "write_file", "create_file", "apply_patch"}
)  # fmt: skip
COMMAND_TOOLS: Final = frozenset(
    {"bash", "shell", "local_shell", "exec_command", "run_terminal_cmd", "run_shell_command", "powershell"}
)
SEARCH_TOOLS: Final = frozenset({"grep", "search", "grep_search", "codebase_search", "search_file_content"})

_EXIT_CODE = re.compile(r"\s*(?:Error:\s*)?exit(?:ed)?(?: with)?(?: code| status)?[ :=]+(\d{1,3})\b", re.IGNORECASE)
_EXIT_KEYS: Final = ("exitCode", "exit_code", "returncode", "return_code", "exit_status")
_OUTPUT_KEYS: Final = (
    "stdout",
    "output",
    "stderr",
    "aggregated_output",
    "result",
    "content",
    "text",
    "message",
    "error",
)


def as_mapping(value: object) -> Mapping[str, object]:
    """`value` as an object; a string that holds a JSON object counts, all else is empty."""
    if isinstance(value, str) and value.lstrip().startswith("{") and len(value) <= MAX_TEXT:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def _within_bounds(text: str) -> str:
    # Both ends: a log says at its end how it went.
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]}\n…\n{text[-MAX_TEXT // 2 :]}"


def text_of(value: object, depth: int = 0) -> str:
    """The readable text inside a value: strings, content blocks, the usual output fields; bounded."""
    if isinstance(value, str):
        return _within_bounds(value)
    if isinstance(value, list) and depth < 4:
        return _within_bounds("\n".join(part for item in value[:200] if (part := text_of(item, depth + 1))))
    if isinstance(value, Mapping) and depth < 4:
        parts = [text_of(value[key], depth + 1) for key in _OUTPUT_KEYS if key in value]
        if any(parts):
            return _within_bounds("\n".join(part for part in parts if part))
        scalars = (f"{key}: {item}" for key, item in value.items() if isinstance(item, str | int | float) and item)
        return _within_bounds("\n".join(scalars))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def first_text(value: Mapping[str, object], *keys: str) -> str:
    """The first of these fields that is text and not blank."""
    for key in keys:
        found = value.get(key)
        if isinstance(found, str) and found.strip():
            return found.strip()[:MAX_TEXT]
    return ""


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """One use of a tool, whatever agent reported it."""

    name: str
    input: Mapping[str, object]
    response: object
    cwd: str

    @property
    def output(self) -> str:
        """The tool's answer as text."""
        return text_of(self.response)

    def path(self) -> str:
        """The file that it was about, relative to the working directory; empty when none is named."""
        answer = as_mapping(self.response)
        found = first_text(self.input, "file_path", "filePath", "path", "notebook_path", "target_file", "relative_path")
        found = (
            found
            or first_text(answer, "filePath", "file_path")
            or first_text(as_mapping(answer.get("file")), "filePath")
        )
        prefix = self.cwd.rstrip("/") + "/"
        return found[len(prefix) :] if self.cwd and found.startswith(prefix) else found

    def failed(self) -> bool:
        """Whether the tool itself said so: an exit status, an error flag."""
        answer = as_mapping(self.response)
        for key in _EXIT_KEYS:
            code = answer.get(key)
            if isinstance(code, int) and not isinstance(code, bool):
                return code != 0
        if (
            any(answer.get(key) is True for key in ("is_error", "isError", "interrupted"))
            or answer.get("success") is False
        ):
            return True
        return (self.exit_code() or 0) != 0

    def exit_code(self) -> int | None:
        """The exit status where one is told."""
        answer = as_mapping(self.response)
        for key in _EXIT_KEYS:
            code = answer.get(key)
            if isinstance(code, int) and not isinstance(code, bool):
                return code
        match = _EXIT_CODE.match(self.output)
        return int(match.group(1)) if match else None


def tool_use(payload: object) -> ToolUse | None:
    """The tool use in a payload, or None when it is not one."""
    fields = as_mapping(payload)
    name = first_text(fields, "tool_name", "toolName", "tool", "name")
    if not name:
        return None
    raw_input = fields.get("tool_input", fields.get("toolInput", fields.get("input", fields.get("arguments"))))
    given = as_mapping(raw_input) or ({"command": raw_input} if isinstance(raw_input, str) else {})
    response = fields.get("tool_response", fields.get("toolResponse", fields.get("output", fields.get("result"))))
    if isinstance(response, str) and as_mapping(response):
        response = as_mapping(response)
    return ToolUse(name=name, input=given, response=response, cwd=first_text(fields, "cwd"))


def prose_of(payload: object) -> str:
    """What a person or an agent said: the message fields of hooks and APIs, or the payload itself when it is text."""
    if isinstance(payload, str):
        return payload[:MAX_TEXT].strip()
    fields = as_mapping(payload)
    return (
        first_text(
            fields,
            "last_assistant_message",
            "prompt",
            "user_prompt",
            "message",
            "text",
            "content",
            "summary",
            "note",
            "body",
            "description",
        )
        or text_of(fields.get("message") or fields.get("content")).strip()
    )


def strings_of(value: object, limit: int) -> Sequence[str]:
    """The strings of a list."""
    return [item for item in value if isinstance(item, str)][:limit] if isinstance(value, list) else []


ASIDE_CHARACTERS: Final = 30_000
"""Texts of this size together take milliseconds to clean and to cut: work for a thread, beside the event loop."""


def is_heavy(values: Sequence[object], characters: int = ASIDE_CHARACTERS) -> bool:
    """Whether the strings inside `values` come to more than `characters`; looks no further than it must."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            characters -= len(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        characters -= 8
        if characters < 0:
            return True
    return False
