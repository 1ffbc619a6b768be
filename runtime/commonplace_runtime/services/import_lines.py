"""Lines of an export become memories, events and sessions: batch by batch, each in one transaction."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from commonplace_runtime.domain.errors import InvalidInput, NotFound
from commonplace_runtime.domain.models import Json, Reach
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.transfer import CleanLine, check_first_line, read_line
from commonplace_runtime.observability import SECRETS_REDACTED
from commonplace_runtime.services.ingest import CLEAN_ASIDE_BYTES
from commonplace_runtime.store import transfer as store
from commonplace_runtime.store.pool import Pool

BATCH_LINES: Final = 200
BATCH_BYTES: Final = 1024 * 1024
"""A batch ends with the line that makes it longer."""
MAX_ERRORS: Final = 100
"""Faults that are told one by one; `failed` counts all."""
MAX_FAILED: Final = 10_000
"""Wrong lines after which no more are read: the file is another one than was meant."""
_TAKEN: Final = "its id, and those made of it, belong to others"


@dataclass(kw_only=True)
class ImportSummary:
    """
    What became of the lines. skipped: the memory here is newer, or the event here is another. lines: how many were
    read. next_line: where to go on. complete: the end of an export was seen.
    """

    imported: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    errors: list[dict[str, Json]] = field(default_factory=list)
    lines: int = 0
    next_line: int = 1
    complete: bool = False

    def fail(self, line: int, message: str) -> None:
        """Note that a line was not stored."""
        self.failed += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append({"line": line, "message": message})

    def answer(self) -> dict[str, Any]:
        """As the wire says it."""
        return {
            "imported": self.imported,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "failed": self.failed,
            "errors": sorted(self.errors, key=lambda fault: cast("int", fault["line"])),
            "lines": self.lines,
            "nextLine": self.next_line,
            "complete": self.complete,
        }


class Importer:
    """
    Takes the lines of one file. project: id or name, where everything goes; None: by each line's project. is_admin: the
    actors that the lines name stay owners. from_line: those before it are not read again.
    """

    def __init__(self, pool: Pool, reach: Reach, *, project: str | None, is_admin: bool, from_line: int = 1) -> None:
        self._pool = pool
        self._reach = reach
        self._project = None if project is None else str(redact(project).value)
        self._is_admin = is_admin
        self._from_line = from_line
        self._waiting: list[tuple[int, bytes | None]] = []
        self._waiting_bytes = 0
        self._has_header = False
        self.summary = ImportSummary(next_line=from_line)

    @property
    def has_given_up(self) -> bool:
        """Whether so much was wrong that no more lines should be given."""
        return self.summary.failed >= MAX_FAILED

    async def take(self, number: int, line: bytes | None) -> None:
        """
        One more line; None: it was too long.

        Raises InvalidInput for a first line that is no header, NotFound and NotPermitted for the project, Unavailable:
        what came before `summary.next_line` is stored then.
        """
        if not self._has_header:
            check_first_line(line)
            self._has_header = True
        if number < self._from_line:
            return
        self._waiting.append((number, line))
        self._waiting_bytes += 0 if line is None else len(line)
        if len(self._waiting) >= BATCH_LINES or self._waiting_bytes >= BATCH_BYTES:
            await self._store()

    async def finish(self) -> ImportSummary:
        """What became of all lines. Raises as `take` does."""
        if not self._has_header:
            check_first_line(None)
        await self._store()
        return self.summary

    async def _store(self) -> None:
        batch, size = self._waiting, self._waiting_bytes
        if not batch:
            return
        self._waiting, self._waiting_bytes = [], 0
        clean = _clean(batch) if size < CLEAN_ASIDE_BYTES else await asyncio.to_thread(_clean, batch)
        records = [line.record for _, line in clean if isinstance(line, CleanLine) and line.record is not None]
        faults = {number: line for number, line in clean if isinstance(line, str)}
        outcomes = await self._send(records) if records else []
        summary = self.summary
        for number, message in faults.items():
            summary.fail(number, message)
        for one in outcomes:
            self._count(one)
        for _, line in clean:
            if isinstance(line, CleanLine):
                summary.complete |= line.type == "end"
                for pattern, count in line.secrets.items():
                    SECRETS_REDACTED.labels(pattern).inc(count)
        summary.lines += len(batch)
        summary.next_line = batch[-1][0] + 1

    async def _send(self, records: Sequence[Mapping[str, Json]]) -> list[dict[str, Any]]:
        """What became of each; those that Postgres refuses do not take the others along."""
        try:
            outcomes = await store.import_records(
                self._pool, self._reach, self._project, records, is_admin=self._is_admin
            )
        except InvalidInput as error:
            if len(records) == 1:
                return [{"line": records[0]["line"], "outcome": "failed", "message": error.message[:200]}]
            half = len(records) // 2
            return [*await self._send(records[:half]), *await self._send(records[half:])]
        if outcomes is None:
            raise NotFound("Project not found")
        return outcomes

    def _count(self, one: Mapping[str, Any]) -> None:
        outcome = one["outcome"]
        if outcome in ("imported", "updated", "unchanged", "skipped"):
            setattr(self.summary, outcome, getattr(self.summary, outcome) + 1)
        else:
            self.summary.fail(one["line"], one.get("message", _TAKEN))


def _clean(batch: Sequence[tuple[int, bytes | None]]) -> list[tuple[int, CleanLine | str]]:
    found: list[tuple[int, CleanLine | str]] = []
    for number, raw in batch:
        try:
            found.append((number, read_line(number, raw)))
        except InvalidInput as error:
            found.append((number, error.message))
    return found
