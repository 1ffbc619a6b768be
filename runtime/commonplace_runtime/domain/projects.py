"""A project as a client asks for it: read from its body, bounded, and cleaned of what must not be stored."""

import json
from dataclasses import dataclass
from typing import Final, cast

from typing_extensions import TypedDict

from commonplace_runtime.domain.bounded_fields import BoundedFields
from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.validation import InvalidFields, Issue, type_name, wrong_type

MAX_NAME: Final = 200
MAX_PATH: Final = 4096
MAX_METADATA: Final = 16 * 1024
"""Characters of the metadata as JSON: every project of a team is listed at once."""


class ProjectRow(TypedDict):
    """A project as it is stored and answered."""

    id: str
    teamId: str
    name: str
    slug: str | None
    rootPath: str | None
    metadata: dict[str, Json]
    createdAtEpoch: int
    updatedAtEpoch: int


class ProjectPage(TypedDict):
    """Projects by name; `nextCursor` is None at the end."""

    projects: list[ProjectRow]
    nextCursor: str | None


@dataclass(frozen=True, kw_only=True)
class NewProject:
    """A project to be, clean."""

    name: str
    slug: str | None
    root_path: str | None
    metadata: dict[str, Json]


def read_project(body: object) -> NewProject:
    """One project from a body, cleaned like an event; a null counts as absent. Raises InvalidFields."""
    issues: list[Issue] = []
    fields = BoundedFields(body, issues)
    given = fields.value("metadata")
    if given is not None and not isinstance(given, dict):
        issues.append(wrong_type(("metadata",), "record", type_name(given)))
    metadata = cast("dict[str, Json]", redact(given if isinstance(given, dict) else {}).value)
    if len(json.dumps(metadata)) > MAX_METADATA:
        issues.append({"code": "too_big", "maximum": MAX_METADATA, "path": ["metadata"], "message": _TOO_MUCH})
    project = NewProject(
        name=_name(fields, issues),
        slug=storable(fields.bounded("slug", MAX_NAME)),
        root_path=storable(fields.bounded("rootPath", MAX_PATH)),
        metadata=metadata,
    )
    if issues:
        raise InvalidFields(issues)
    return project


_TOO_MUCH: Final = f"Too big: expected metadata to have <={MAX_METADATA} characters of JSON"


def _name(fields: BoundedFields, issues: list[Issue]) -> str:
    given = fields.bounded("name", MAX_NAME, least=1)
    if given is None:
        if fields.value("name") is None:
            issues.append(wrong_type(("name",), "string", "null" if fields.has("name") else "undefined"))
        return ""
    name = (storable(given) or "").strip()
    if name and len(name) <= MAX_NAME:
        return name
    message = "Invalid name: without private parts and secrets it is empty or too long"
    issues.append({"code": "custom", "path": ["name"], "message": message})
    return ""
