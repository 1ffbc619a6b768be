"""The API's own description: GET /v1/openapi.json."""

from typing import Final

from commonplace_runtime.entrypoints.http.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
