"""What an edit changed: the lines that went and those that came."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from commonplace_runtime.domain.payloads import ToolUse, as_mapping, first_text

MAX_EDITS: Final = 20
"""Edits of one event that are looked at; a memory shows fewer."""
MAX_DIFF_LINES: Final = 400
"""Lines that all edits of one event may have together, on either side."""


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Lines without their indentation, in the order of the file; at least one went or came."""

    gone: Sequence[str]
    come: Sequence[str]

    @property
    def text(self) -> str:
        """One line each, marked `-` or `+`."""
        return "\n".join([*(f"- {line}" for line in self.gone), *(f"+ {line}" for line in self.come)])


def diff_of(use: ToolUse) -> Diff | None:
    """What an edit changed, or a write over a file whose original is told; None where that cannot be seen."""
    gone: list[str] = []
    come: list[str] = []
    room = MAX_DIFF_LINES
    for old, new in _edits(use):
        before, after = old.splitlines()[:room], new.splitlines()[:room]
        lost, won = changed_lines(before, after)
        gone, come = gone + lost, come + won
        room -= max(len(before), len(after))
    return Diff(gone=gone, come=come) if gone or come else None


def _edits(use: ToolUse) -> Sequence[tuple[str, str]]:
    listed = use.input.get("edits")
    changes = [as_mapping(item) for item in listed[:MAX_EDITS]] if isinstance(listed, list) else [use.input]
    pairs = [
        (
            first_text(one, "old_string", "old_str", "oldString"),
            first_text(one, "new_string", "new_str", "newString", "new_source"),
        )
        for one in changes
    ]
    return [pair for pair in pairs if any(pair)]


def changed_lines(before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    """
    The lines that went and those that came, in time linear in their number.

    A real difference is quadratic where lines repeat, and would say little more in a memory's few lines.
    """
    start, end = 0, min(len(before), len(after))
    while start < end and before[start] == after[start]:
        start += 1
    tail = 0
    while tail < end - start and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    before, after = before[start : len(before) - tail], after[start : len(after) - tail]
    gone, come = _without(before, after), _without(after, before)
    # The same lines in another order.
    return (gone, come) if gone or come else (_shown(before), _shown(after))


def _without(lines: Sequence[str], others: Sequence[str]) -> list[str]:
    left = Counter(others)
    kept: list[str] = []
    for line in lines:
        if left[line] > 0:
            left[line] -= 1
        else:
            kept.append(line)
    return _shown(kept)


def _shown(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip()]
