"""Query parameters, read after authentication and refused like bodies."""

from starlette.requests import Request

from commonplace_runtime.domain.validation import InvalidFields, Issue


def read_flag(request: Request, name: str, *, default: bool) -> bool:
    """`true` or `false`, once at most. Raises InvalidFields for anything else."""
    values = request.query_params.getlist(name)
    if not values:
        return default
    if len(values) == 1 and values[0] in ("true", "false"):
        return values[0] == "true"
    issue: Issue = {"code": "invalid_union", "errors": [], "path": [name], "message": "Invalid input"}
    raise InvalidFields([issue])
