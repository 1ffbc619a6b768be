"""
Write what the charts repeat of `crds/`: the CRDs themselves, and the schema of the tenancy chart's values.

    python -m charts.generate

A chart cannot read outside its folder, and a symbolic link would not do: Flux drops links from what it fetches.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

Schema = dict[str, Any]

REPOSITORY: Final = Path(__file__).resolve().parents[1]
CRDS: Final = REPOSITORY / "crds"
CRDS_OF_CHART: Final = REPOSITORY / "charts" / "commonplace" / "files" / "crds"
TENANCY_SCHEMA: Final = REPOSITORY / "charts" / "commonplace-tenancy" / "values.schema.json"

_COPIED: Final = (
    "description",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
)
_NAMESPACE: Final = {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
_NAME: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def value_schema(crd: Mapping[str, Any]) -> Schema:
    """A CRD's OpenAPI schema as JSON Schema of values: unknown keys refused, rules and defaults left to the server."""
    made: Schema = {key: crd[key] for key in _COPIED if key in crd}
    if crd.get("x-kubernetes-int-or-string"):
        return made | {"type": ["integer", "string"]}
    made["type"] = crd["type"]
    if "properties" in crd:
        made["properties"] = {name: value_schema(field) for name, field in crd["properties"].items()}
    if crd["type"] == "object":
        values = crd.get("additionalProperties")
        made["additionalProperties"] = value_schema(values) if isinstance(values, dict) else False
    if "items" in crd:
        made["items"] = value_schema(crd["items"])
    return made


def tenancy_schema(specs: Mapping[str, Mapping[str, Any]]) -> Schema:
    """The schema of the tenancy chart's values; `specs` holds the OpenAPI schema of each kind's spec."""
    key = _entry(specs["ApiKey"], without="teamRef", more=_part_keys())
    quota = _entry(specs["Quota"], without="teamRef", more=_part_keys())
    parts = {
        "apiKeys": _by_name("ApiKeys of the team by name; null takes one away.", key),
        "quotas": _by_name("Quotas of the team by name; null takes one away.", quota),
    }
    place = {"namespace": {"description": "Namespace of the object. Default the values' namespace.", **_NAMESPACE}}
    runtime = _entry(specs["MemoryRuntime"], more=place | _metadata("the object"))
    team = _entry(specs["MemoryTeam"], not_required="runtimeRef", more=place | _metadata("the object") | parts)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart commonplace-tenancy; made by charts/generate.py",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "global": {
                "description": "Values shared with other charts where this one is a dependency; not read.",
                "type": "object",
            },
            "namespace": {
                "description": "Namespace of all objects; empty: the release's.",
                **_NAMESPACE,
                "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
            },
            **_metadata("all objects"),
            "operatorClass": {
                "description": "Class of the operator that serves the objects; empty: default.",
                "type": "string",
                "pattern": "^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$",
            },
            "keep": {
                "description": "Leave the objects in the cluster when the release is uninstalled.",
                "type": "boolean",
            },
            "runtimes": _by_name("MemoryRuntimes by name; null takes one away.", runtime),
            "teams": _by_name("MemoryTeams by name; null takes one away.", team),
        },
    }


def _metadata(whose: str) -> Schema:
    value = {"type": "string"}
    return {
        "labels": {
            "description": f"Labels of {whose}.",
            "type": "object",
            "additionalProperties": {"description": "Value of the label.", **value, "maxLength": 63},
        },
        "annotations": {
            "description": f"Annotations of {whose}.",
            "type": "object",
            "additionalProperties": {"description": "Value of the annotation.", **value},
        },
    }


def _part_keys() -> Schema:
    name = {
        "description": "Name of the object. Default the team's name, a dash and the entry's.",
        "type": "string",
        "maxLength": 63,
        "pattern": _NAME,
    }
    return {"name": name, **_metadata("the object")}


def _entry(
    spec: Mapping[str, Any], *, more: Schema, without: str | None = None, not_required: str | None = None
) -> Schema:
    """An object's spec with the chart's own keys beside it."""
    made = value_schema(spec)
    twice = set(made["properties"]) & set(more)
    if twice:
        raise ValueError(f"the spec has fields that are the chart's own keys: {', '.join(sorted(twice))}")
    made["properties"] = {name: field for name, field in made["properties"].items() if name != without} | more
    made["required"] = [name for name in made.get("required", ()) if name not in {without, not_required}]
    return made if made["required"] else {key: value for key, value in made.items() if key != "required"}


def _by_name(description: str, entry: Schema) -> Schema:
    return {
        "description": description,
        "type": "object",
        "propertyNames": {"pattern": _NAME, "maxLength": 63},
        "additionalProperties": entry | {"type": ["object", "null"]},
    }


def specs_of(folder: Path) -> dict[str, Schema]:
    """Of each kind whose CRD lies in `folder`, the schema of its spec."""
    found = {}
    for file in sorted(folder.glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        found[crd["spec"]["names"]["kind"]] = schema["properties"]["spec"]
    return found


def rendered(schema: Schema) -> str:
    """As it stands in the file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def wanted_files() -> dict[Path, str]:
    """Every generated file and its content."""
    files: dict[Path, str] = {CRDS_OF_CHART / file.name: file.read_text() for file in sorted(CRDS.glob("*.yaml"))}
    return files | {TENANCY_SCHEMA: rendered(tenancy_schema(specs_of(CRDS)))}


def write(say: Callable[[str], None]) -> None:
    """Write the files that differ and remove CRDs that `crds/` has no more."""
    files = wanted_files()
    for stale in set(CRDS_OF_CHART.glob("*.yaml")) - set(files):
        stale.unlink()
        say(f"removed {stale.relative_to(REPOSITORY)}")
    for file, content in files.items():
        if not file.exists() or file.read_text() != content:
            file.write_text(content)
            say(f"wrote {file.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    write(print)
