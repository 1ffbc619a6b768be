"""
What a route is: where it stands, what handles it, and what the API description says of it.

A module of routes ends with its `OPERATIONS`; `app.py` gathers them. Who may call is not said again here: the
description reads it off the handler's own gate (`needs`).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field
from starlette.responses import Response

from commonplace_runtime.domain.models import Json

Handler: TypeAlias = Callable[..., Awaitable[Response]]
Tag: TypeAlias = Literal[
    "Capture",
    "Recall",
    "Memories",
    "Projects",
    "Erasure",
    "Transfer",
    "Jobs",
    "Keys",
    "Audit",
    "Usage",
    "Health",
    "Compat",
]

Text: TypeAlias = Annotated[str, Field(min_length=1)]
"""A field that must not be empty where it is given."""
ProjectName: TypeAlias = Annotated[
    str, Field(min_length=1, description="Id or name of a project. Default: the key's own.", examples=["default"])
]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """
    One route. Its summary is the first line of the handler's docstring.

    id: the operation id, which never changes. body, query, answer: a type that pydantic can describe (a TypedDict of
    `typing_extensions`, a list of one); None: none. `query` is a TypedDict whose fields are the parameters. media:
    content type of the answer, body_media: of the body. also: further statuses with the same answer. fails: statuses
    beyond those that every route with a key, or with a body, may answer. example: a body that works. path_examples:
    by the name of the path's part.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    handler: Handler
    id: str
    tag: Tag
    body: Any = None
    query: Any = None
    answer: Any = None
    status: int = 200
    also: tuple[int, ...] = ()
    media: str = "application/json"
    body_media: str = "application/json"
    fails: tuple[int, ...] = ()
    example: Json = None
    path_examples: Mapping[str, str] = field(default_factory=dict)
