"""Query parameters, read after authentication and refused like bodies."""

import re
from typing import Final

from starlette.requests import Request

from commonplace_runtime.domain.validation import InvalidFields, Issue

_DIGITS: Final = re.compile(r"[0-9]{1,9}")


def read_flag(request: Request, name: str, *, default: bool) -> bool:
    """`true` or `false`, once at most. Raises InvalidFields for anything else."""
    values = request.query_params.getlist(name)
    if not values:
        return default
    if len(values) == 1 and values[0] in ("true", "false"):
        return values[0] == "true"
    issue: Issue = {"code": "invalid_union", "errors": [], "path": [name], "message": "Invalid input"}
    raise InvalidFields([issue])


def read_count(request: Request, name: str, *, default: int, most: int) -> int:
    """A whole number from 1 to `most`, once at most. Raises InvalidFields for anything else."""
    values = request.query_params.getlist(name)
    if not values:
        return default
    if len(values) == 1 and _DIGITS.fullmatch(values[0]) and 1 <= int(values[0]) <= most:
        return int(values[0])
    message = f"Invalid input: expected a whole number from 1 to {most}"
    raise InvalidFields([{"code": "invalid_type", "expected": "int", "path": [name], "message": message}])
