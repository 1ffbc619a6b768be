"""A project as a client asks for it: read from its body, bounded, and cleaned of what must not be stored."""

import json
from dataclasses import dataclass
from typing import Final, cast

from typing_extensions import TypedDict

from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue, type_name, wrong_type

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
    fields = Fields(body, issues)
    given = fields.value("metadata")
    if given is not None and not isinstance(given, dict):
        issues.append(wrong_type(("metadata",), "record", type_name(given)))
    metadata = cast("dict[str, Json]", redact(given if isinstance(given, dict) else {}).value)
    if len(json.dumps(metadata)) > MAX_METADATA:
        issues.append(_too_long("metadata", MAX_METADATA))
    project = NewProject(
        name=_name(fields, issues),
        slug=_text(fields, "slug", MAX_NAME, issues),
        root_path=_text(fields, "rootPath", MAX_PATH, issues),
        metadata=metadata,
    )
    if issues:
        raise InvalidFields(issues)
    return project


def _name(fields: Fields, issues: list[Issue]) -> str:
    given = fields.text("name", required=True)
    name = (storable(given) or "").strip()
    if len(name) > MAX_NAME:
        issues.append(_too_long("name", MAX_NAME))
    elif given is not None and not name:
        message = "Too small: expected string to have >=1 characters"
        issues.append({"code": "too_small", "origin": "string", "minimum": 1, "path": ["name"], "message": message})
    return name


def _text(fields: Fields, name: str, most: int, issues: list[Issue]) -> str | None:
    value = fields.value(name)
    if value is None or value == "":
        return None
    text = storable(fields.text(name))
    if text is not None and len(text) > most:
        issues.append(_too_long(name, most))
    return text


def _too_long(name: str, most: int) -> Issue:
    message = f"Too big: expected string to have <={most} characters"
    return {"code": "too_big", "origin": "string", "maximum": most, "path": [name], "message": message}
