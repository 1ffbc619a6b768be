"""
Write `docs/reference/`: the API's description, its operations and its errors, as the code says them.

    python -m docs.generate            writes them, and says what breaks clients that know the description before
    python -m docs.generate --check    writes nothing; fails where they are outdated, and shows the difference
"""

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from commonplace_runtime.entrypoints.http.app import OPERATIONS
from commonplace_runtime.entrypoints.http.catalogue import FAULTS
from commonplace_runtime.entrypoints.http.openapi import document

Json = dict[str, Any]

REPOSITORY: Final = Path(__file__).resolve().parents[1]
REFERENCE: Final = REPOSITORY / "docs" / "reference"
OPENAPI: Final = REFERENCE / "openapi.json"
COMMAND: Final = ".venv/bin/python -m docs.generate"
SHOWN_LINES: Final = 60
_METHODS: Final = ("get", "post", "patch", "delete")
_MADE: Final = f"<!-- made by {COMMAND.removeprefix('.venv/bin/')} -->"


def wanted_files() -> dict[Path, str]:
    """File → content."""
    description = document(OPERATIONS)
    return {
        OPENAPI: json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
        REFERENCE / "api.md": api_page(description),
        REFERENCE / "errors.md": errors_page(),
    }


def operations_of(description: Json) -> Iterator[tuple[str, str, Json]]:
    """Method, path and operation of each route."""
    for path, item in description["paths"].items():
        for method in _METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def api_page(description: Json) -> str:
    """The operations as tables, one for each tag."""
    lines = ["# The API", "", _MADE, "", description["info"]["description"].replace("error catalogue", _LINK).strip()]
    lines += ["", "Shapes and examples are in [openapi.json](openapi.json); a server answers it at `/v1/openapi.json`."]
    for tag in description["tags"]:
        lines += ["", f"## {tag['name']}", "", tag["description"], ""]
        lines += ["| route | does | scopes, any of | answers |", "| --- | --- | --- | --- |"]
        for method, path, operation in operations_of(description):
            if tag["name"] in operation["tags"]:
                scopes = ", ".join(f"`{scope}`" for scope in operation.get("x-scopes", ()))
                statuses = " ".join(operation["responses"])
                lines.append(f"| `{method} {path}` | {_cell(operation['summary'])} | {scopes or '–'} | {statuses} |")
    return "\n".join(lines) + "\n"


_LINK: Final = "[error catalogue](errors.md)"


def errors_page() -> str:
    """Every fault with an example."""
    lines = [
        *("# Errors", "", _MADE, ""),
        "Every refusal is a JSON object. Match `error`, which never changes; `message` is for people. "
        "Answers of `/v1` carry `X-Request-Id`, and audit and log know the request by it.",
        *("", "| status | `error` | when |", "| --- | --- | --- |"),
    ]
    lines += [f"| {fault.status} | `{fault.error}` | {_cell(fault.when)} |" for fault in FAULTS]
    for fault in FAULTS:
        lines += ["", f"## {fault.status} {fault.error}", "", fault.when, "", fault.what_to_do, "", "```http"]
        lines += [f"HTTP/1.1 {fault.status}", *(f"{name}: {value}" for name, value in fault.headers.items()), ""]
        lines += [json.dumps(fault.body, indent=2), "```"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def breaking(before: Json, after: Json) -> list[str]:
    """What a client that knows `before` would stumble over in `after`."""
    old, new = _by_id(before), _by_id(after)
    found = [f"{name} ({route}) is gone" for name, (route, _) in old.items() if name not in new]
    for name in old.keys() & new.keys():
        (was_at, was), (is_at, now) = old[name], new[name]
        if was_at != is_at:
            found.append(f"{name} moved from {was_at} to {is_at}")
        found += [f"{name} now requires {part}" for part in sorted(_required(after, now) - _required(before, was))]
        found += [f"{name} no longer answers {part}" for part in sorted(_answered(before, was) - _answered(after, now))]
    return sorted(found)


def _by_id(description: Json) -> dict[str, tuple[str, Json]]:
    return {each["operationId"]: (f"{method} {path}", each) for method, path, each in operations_of(description)}


def _required(description: Json, operation: Json) -> set[str]:
    named = {
        f"the {each['in']} parameter {each['name']}"
        for each in operation.get("parameters", ())
        if each["required"] and each["in"] == "query"
    }
    for content in operation.get("requestBody", {}).get("content", {}).values():
        named |= {f"the field {path}" for path in _fields(description, content["schema"], only_required=True)}
    return named


def _answered(description: Json, operation: Json) -> set[str]:
    named = set()
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            for content in response.get("content", {}).values():
                named |= {f"the field {path}" for path in _fields(description, content["schema"], only_required=False)}
    return named


def _fields(description: Json, schema: Json, *, only_required: bool, path: str = "", depth: int = 6) -> Iterator[str]:
    """Dotted paths of the fields below a schema."""
    if depth == 0:
        return
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    names = schema.get("required", ()) if only_required else schema.get("properties", {})
    for name in names:
        yield f"{path}{name}"
        inner = schema.get("properties", {}).get(name, {})
        yield from _fields(description, inner, only_required=only_required, path=f"{path}{name}.", depth=depth - 1)
    if "items" in schema:
        yield from _fields(
            description, schema["items"], only_required=only_required, path=f"{path}[].", depth=depth - 1
        )
    for choice in schema.get("anyOf", ()):
        yield from _fields(description, choice, only_required=only_required, path=path, depth=depth - 1)


def problems(wanted: Mapping[Path, str]) -> list[str]:
    """What is outdated, as text for people; empty where nothing is."""
    found: list[str] = []
    if OPENAPI.exists():
        breaks = breaking(json.loads(OPENAPI.read_text()), json.loads(wanted[OPENAPI]))
        found += [f"breaks clients: {each}" for each in breaks]
    for file, content in wanted.items():
        name = str(file.relative_to(REPOSITORY))
        frozen = file.read_text() if file.exists() else ""
        if frozen != content:
            found.append(_difference(name, frozen, content))
    return found


def _difference(name: str, frozen: str, content: str) -> str:
    lines = list(
        difflib.unified_diff(
            frozen.splitlines(), content.splitlines(), f"{name} (frozen)", f"{name} (code)", lineterm=""
        )
    )
    more = [f"… {len(lines) - SHOWN_LINES} more lines"] if len(lines) > SHOWN_LINES else []
    return "\n".join([*lines[:SHOWN_LINES], *more])


def main(arguments: Sequence[str]) -> int:
    """0 when all is written, or with `--check` up to date; 1 otherwise; 2 for other arguments."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    wanted = wanted_files()
    found = problems(wanted)
    if arguments:
        print("\n\n".join(found) if found else "verify: docs/reference is what the code says")
        if found:
            print(f"\nverify: outdated. If this is meant, renew and commit: {COMMAND}")
        return 1 if found else 0
    REFERENCE.mkdir(exist_ok=True)
    for file, content in wanted.items():
        file.write_text(content)
    print("\n".join([line for line in found if line.startswith("breaks clients")] or ["written; no client breaks"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
