"""Export and import as NDJSON: GET /v1/export, POST /v1/import."""

from typing import Final

from commonplace_runtime.entrypoints.http.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
