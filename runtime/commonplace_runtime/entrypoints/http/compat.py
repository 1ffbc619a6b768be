"""What claude-mem's older hooks send: /api/sessions/observations, /api/sessions/summarize."""

from typing import Final

from commonplace_runtime.entrypoints.http.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
