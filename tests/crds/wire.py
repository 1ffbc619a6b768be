"""Minimal valid objects of our kinds, and the few requests that the cases make of the API server."""

import copy
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from e2e.cluster.api import ApiClient

Json: TypeAlias = dict[str, Any]

GROUP: Final = "commonplace.dev"
VERSION: Final = "v1alpha1"
KINDS: Final = {
    "memoryruntimes": "MemoryRuntime",
    "memoryteams": "MemoryTeam",
    "apikeys": "ApiKey",
    "memoryquotas": "Quota",
}
MINIMAL: Final[Mapping[str, Json]] = {
    "memoryruntimes": {
        "management": "External",
        "publicUrl": "https://memory.example.com",
        "database": {"operatorSecretRef": {"name": "postgres"}},
    },
    "memoryteams": {"runtimeRef": {"name": "prod"}},
    "apikeys": {"teamRef": {"name": "search"}, "scopes": ["memories:read"]},
    "memoryquotas": {"teamRef": {"name": "search"}, "hard": {"memories": 1000}},
}


def crd(plural: str) -> Json:
    """The CustomResourceDefinition as it stands in `crds/`."""
    file = Path(__file__).resolve().parents[2] / "crds" / f"{plural}.yaml"
    loaded: Json = yaml.safe_load(file.read_text())
    return loaded


def schema(plural: str) -> Json:
    """The schema of the one version."""
    (version,) = crd(plural)["spec"]["versions"]
    root: Json = version["schema"]["openAPIV3Schema"]
    return root


def fields(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every part of a schema with its path: `spec.keys[].id`, `spec.labels{}`; the root's path is empty."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from fields(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from fields(node["additionalProperties"], f"{path}{{}}")


def merged(base: Json, change: Json) -> Json:
    """`base` with a JSON merge patch: None removes."""
    result = copy.deepcopy(base)
    for name, wanted in change.items():
        if wanted is None:
            result.pop(name, None)
        elif isinstance(wanted, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], wanted)
        else:
            result[name] = copy.deepcopy(wanted)
    return result


def new_object(plural: str, change: Json, *, name: str | None = None) -> Json:
    """A minimal valid object with `change` merged into its spec."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KINDS[plural],
        "metadata": {"name": name or f"o-{uuid.uuid4().hex[:12]}"},
        "spec": merged(MINIMAL[plural], change),
    }


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Requests within one namespace. Answers are (status code, decoded body)."""

    api: ApiClient
    namespace: str

    def path(self, plural: str, name: str = "") -> str:
        root = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{plural}"
        return f"{root}/{name}" if name else root

    def try_create(self, plural: str, wanted: Json) -> tuple[int, Json]:
        """What creating would answer, unknown fields being errors; nothing is stored."""
        return self.api.request("POST", f"{self.path(plural)}?dryRun=All&fieldValidation=Strict", wanted)

    def create(self, plural: str, wanted: Json) -> Json:
        status, stored = self.api.request("POST", self.path(plural), wanted)
        assert status == 201, stored
        result: Json = stored
        return result

    def try_replace(self, plural: str, stored: Json, spec: Json) -> tuple[int, Json]:
        """What replacing the spec of a stored object would answer; nothing is stored."""
        path = self.path(plural, stored["metadata"]["name"])
        return self.api.request("PUT", f"{path}?dryRun=All&fieldValidation=Strict", {**stored, "spec": spec})

    def apply_status(self, plural: str, name: str, status: Json) -> tuple[int, Json]:
        """Server-side apply of the whole status, as the operator writes it; undeclared fields are refused."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KINDS[plural],
            "metadata": {"name": name},
            "status": status,
        }
        query = "fieldManager=commonplace-operator&force=true"
        path = f"{self.path(plural, name)}/status?{query}"
        return self.api.request("PATCH", path, body, content_type="application/apply-patch+yaml")


def causes(refusal: Json) -> list[tuple[str, str, str]]:
    """(reason, field, message) of each fault in a refusal."""
    found = refusal.get("details", {}).get("causes", [])
    return [(cause.get("reason", ""), cause.get("field", ""), cause.get("message", "")) for cause in found]
