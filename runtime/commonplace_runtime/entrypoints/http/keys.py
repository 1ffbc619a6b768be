"""Keys: POST, GET /v1/keys, DELETE /v1/keys/:id."""

from typing import Final

from commonplace_runtime.entrypoints.http.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
