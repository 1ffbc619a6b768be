"""Checks bodies the way the wire's clients know it: every fault at once, each an issue with code, path and message."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.domain.models import Json

Path: TypeAlias = tuple[str | int, ...]
Issue: TypeAlias = dict[str, Json]
Size: TypeAlias = Literal["string", "array"]

MAX_DEPTH: Final = 200
"""Nesting that a body may have; real tool output stays below 50."""


class InvalidFields(InvalidInput):
    """Parts of a body or query are wrong; `issues` says which and how."""

    code = "invalid_fields"

    def __init__(self, issues: Sequence[Issue]) -> None:
        super().__init__("the request is not valid")
        self.issues = list(issues)


class ProjectMissing(InvalidInput):
    """No project was named and none is evident; `position` is the item's in a batch, from 0."""

    code = "project_missing"

    def __init__(self, position: int) -> None:
        super().__init__('"projectId" is required')
        self.position = position


def type_name(value: object) -> str:
    """What JavaScript calls a JSON value's type, with `null` and `array` told apart."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "undefined"


def wrong_type(path: Path, expected: str, received: str) -> Issue:
    """The issue for a value of another type; `received` is `undefined` for a missing one."""
    message = f"Invalid input: expected {expected}, received {received}"
    return {"code": "invalid_type", "expected": expected, "path": list(path), "message": message}


class Fields:
    """
    Reads the fields of one object; what is wrong is added to `issues` and read as the field's default.

    `given` may be anything: a wrong type is the first issue. A field that is null counts as absent.
    """

    def __init__(self, given: object, issues: list[Issue], path: Path = ()) -> None:
        self._issues = issues
        self._path = path
        self._given: Mapping[str, Json] = {}
        if isinstance(given, dict):
            self._given = given
        else:
            issues.append(wrong_type(path, "object", type_name(given)))

    def has(self, name: str) -> bool:
        """Whether the field is there at all, null included."""
        return name in self._given

    def value(self, name: str) -> Json:
        """The field as it is, None when absent."""
        return self._given.get(name)

    def text(self, name: str, *, required: bool = False) -> str | None:
        """A string of at least one character."""
        value = self._given.get(name)
        if value is None:
            if required:
                self._add(wrong_type((*self._path, name), "string", "null" if name in self._given else "undefined"))
            return None
        if not isinstance(value, str):
            self._add(wrong_type((*self._path, name), "string", type_name(value)))
            return None
        if not value:
            self._too_small(name, "string", 1)
            return None
        return value

    def choice(self, name: str, options: Sequence[str], default: str) -> str:
        """One of `options`."""
        value = self._given.get(name)
        if value is None:
            return default
        if isinstance(value, str) and value in options:
            return value
        message = "Invalid option: expected one of " + "|".join(f'"{option}"' for option in options)
        self._add({"code": "invalid_value", "values": list(options), "path": [*self._path, name], "message": message})
        return default

    def integer(self, name: str, *, minimum: int, maximum: int) -> int | None:
        """A whole number within bounds; 2.0 is whole, True is no number."""
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._add(wrong_type((*self._path, name), "number", type_name(value)))
            return None
        if isinstance(value, float):
            if not math.isfinite(value) or not value.is_integer():
                issue = wrong_type((*self._path, name), "int", "number")
                self._add({**issue, "format": "safeint"})
                return None
            value = int(value)
        if value < minimum:
            self._bound(
                name, "too_small", "number", "minimum", minimum, f"Too small: expected number to be >={minimum}"
            )
        elif value > maximum:
            self._bound(name, "too_big", "number", "maximum", maximum, f"Too big: expected number to be <={maximum}")
        return value

    def _too_small(self, name: str, origin: Size, least: int) -> None:
        unit = "characters" if origin == "string" else "items"
        message = f"Too small: expected {origin} to have >={least} {unit}"
        self._bound(name, "too_small", origin, "minimum", least, message)

    def _bound(self, name: str, code: str, origin: str, side: str, bound: int, message: str) -> None:
        self._add(
            {
                "origin": origin,
                "code": code,
                side: bound,
                "inclusive": True,
                "path": [*self._path, name],
                "message": message,
            }
        )

    def _add(self, issue: Issue) -> None:
        self._issues.append(issue)


def size_issues(items: Sequence[Json], *, least: int, most: int) -> list[Issue]:
    """What is wrong with an array's length."""
    if len(items) < least:
        message = f"Too small: expected array to have >={least} items"
        bound: Issue = {"code": "too_small", "minimum": least, "message": message}
    elif len(items) > most:
        message = f"Too big: expected array to have <={most} items"
        bound = {"code": "too_big", "maximum": most, "message": message}
    else:
        return []
    return [{"origin": "array", "inclusive": True, "path": [], **bound}]


def is_too_deep(value: Json, limit: int = MAX_DEPTH) -> bool:
    """Whether lists and objects nest deeper than `limit`. Needs no stack of its own depth."""
    level: list[Json] = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def has_more_nodes(value: Json, limit: int) -> bool:
    """Whether `value` and all that is inside are more than `limit` values. Looks at little more than `limit`."""
    seen = 1
    waiting = [value]
    while waiting:
        node = waiting.pop()
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        seen += len(children)
        if seen > limit:
            return True
        waiting += [child for child in children if isinstance(child, dict | list)]
    return False
