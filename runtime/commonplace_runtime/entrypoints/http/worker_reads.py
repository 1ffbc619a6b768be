"""What claude-mem's hooks and tools read from its local worker: context injection, search, timeline, by file."""

from typing import Final

from commonplace_runtime.entrypoints.http.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
