"""Forgetting: DELETE /v1/memories/:id, DELETE /v1/projects/:id/memory, POST /v1/forget."""

from typing import Final

from commonplace_runtime.entrypoints.http.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
