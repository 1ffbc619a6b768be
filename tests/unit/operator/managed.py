"""Managed MemoryRuntimes of a few shapes, with the Secrets they name, and every child made of them."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from commonplace_operator.children.credentials import Passwords
from commonplace_operator.children.installation import Installation
from commonplace_operator.children.migration import migration_job
from commonplace_operator.children.order import after_migration, before_migration, optional
from commonplace_operator.planning.managed import image_name, wanted_version
from commonplace_operator.planning.secrets import Missing, Resolved, resolve
from commonplace_operator.resources.objects import MemoryRuntime
from tests.unit.operator.factories import MAC_KEY

INSTALLATION: Final = "cluster-uid/default"
PASSWORDS: Final = Passwords(
    owner="owners-password", runtime="runtimes-password", operator="operators-password", redis="redis-password"
)
OWNER_URI: Final = "postgresql://app:hunter2-owner@db.example.com:5433/memory?sslmode=require"
QUEUE_URI: Final = "rediss://:hunter2-queue@queue.example.com:6390/0"


@dataclass(frozen=True, kw_only=True)
class Example:
    """The spec of a MemoryRuntime and the Secrets of its namespace, in clear."""

    spec: Mapping[str, Any]
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    name: str = "main"
    annotations: Mapping[str, str] = field(default_factory=dict)

    def changed(self, **spec: Any) -> "Example":
        """With other fields of the spec."""
        return Example(spec={**self.spec, **spec}, secrets=self.secrets, name=self.name, annotations=self.annotations)

    def named(self, name: str) -> "Example":
        """The same under another name."""
        return Example(spec=self.spec, secrets=self.secrets, name=name, annotations=self.annotations)

    def with_secret(self, name: str, **data: str) -> "Example":
        """With one Secret changed."""
        known = {**self.secrets, name: {**self.secrets.get(name, {}), **data}}
        return Example(spec=self.spec, secrets=known, name=self.name, annotations=self.annotations)


TRIAL: Final = Example(spec={"database": {"embedded": True}, "queue": {"embedded": True}})
PRODUCTION: Final = Example(
    spec={
        "version": "0.1.0",
        "database": {"ownerSecretRef": {"name": "memory-owner", "key": "uri"}},
        "queue": {"secretRef": {"name": "memory-queue", "key": "uri"}},
        "ingress": {
            "host": "memory.example.com",
            "className": "nginx",
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
            "tls": {"secretName": "memory-tls"},
        },
        "provider": {
            "name": "anthropic",
            "model": "claude-haiku-4-5",
            "secretRef": {"name": "model-keys", "key": "anthropic"},
            "fallbacks": [
                {"name": "gemini", "secretRef": {"name": "model-keys", "key": "gemini"}},
                {"name": "extractive"},
            ],
        },
        "api": {"replicas": 3},
        "workers": {"concurrency": 16, "autoscaling": {"minReplicas": 2, "maxReplicas": 40}},
        "monitoring": {"serviceMonitor": True, "labels": {"release": "prometheus"}},
        "allowedTeams": {"from": "All"},
    },
    secrets={
        "memory-owner": {"uri": OWNER_URI},
        "memory-queue": {"uri": QUEUE_URI},
        "model-keys": {"anthropic": "hunter2-anthropic", "gemini": "hunter2-gemini"},
    },
)
CLOUDNATIVE_PG: Final = Example(
    spec={"database": {"ownerSecretRef": {"name": "memory-app", "key": "uri"}}},
    secrets={
        "memory-app": {
            "username": "app",
            "password": "hunter2-cnpg",
            "host": "memory-rw",
            "port": "5432",
            "dbname": "app",
            "pgpass": "memory-rw:5432:app:app:hunter2-cnpg\n",
            "uri": "postgresql://app:hunter2-cnpg@memory-rw.ns:5432/app",
            "jdbc-uri": "jdbc:postgresql://memory-rw.ns:5432/app?password=hunter2-cnpg&user=app",
        }
    },
)
OWN_REGISTRY: Final = Example(
    spec={
        "image": {
            "repository": "registry.example.com/memory/runtime",
            "digest": f"sha256:{'0123456789abcdef' * 4}",
            "pullPolicy": "Always",
            "pullSecrets": ["registry-login"],
        },
        "database": {
            "ownerSecretRef": {"name": "memory-owner", "key": "uri"},
            "runtimeSecretRef": {"name": "memory-pooler", "key": "runtime"},
            "operatorSecretRef": {"name": "memory-pooler", "key": "operator"},
        },
        "provider": {"name": "openai", "model": "llama", "secretRef": {"name": "vllm", "key": "api-key"}},
        "api": {
            "replicas": 2,
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        },
        "workers": {
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
            "terminationGracePeriodSeconds": 600,
        },
    },
    secrets={
        "memory-owner": {"uri": OWNER_URI},
        "memory-pooler": {
            "runtime": "postgresql://serves:hunter2-serves@pooler.example.com:6432/memory",
            "operator": "postgresql://tends:hunter2-tends@db.example.com:5433/memory",
        },
        "vllm": {"api-key": "hunter2-vllm", "base-url": "http://vllm.models.svc:8000/v1"},
    },
)
EXAMPLES: Final[Mapping[str, Example]] = {
    "trial": TRIAL,
    "production": PRODUCTION,
    "cloudnative-pg": CLOUDNATIVE_PG,
    "own-registry": OWN_REGISTRY,
}


def managed(example: Example) -> MemoryRuntime:
    """The object as the API server gives it."""
    return MemoryRuntime.parse(
        {
            "metadata": {
                "name": example.name,
                "namespace": "ns",
                "uid": "00000000-0000-4000-8000-000000000000",
                "generation": 1,
                "annotations": dict(example.annotations),
            },
            "spec": dict(example.spec),
        }
    )


def resolved(example: Example, *, passwords: Passwords = PASSWORDS) -> Resolved | Missing:
    """What its Secrets come to."""
    runtime = managed(example)
    return resolve(
        runtime,
        known=example.secrets,
        passwords=passwords,
        image=image_name(runtime.spec.image, version=wanted_version(runtime), default_repository="commonplace/runtime"),
        mac_key=MAC_KEY,
        installation=INSTALLATION,
    )


def installed(example: Example, *, passwords: Passwords = PASSWORDS) -> Installation:
    """The installation; its Secrets suffice."""
    found = resolved(example, passwords=passwords)
    assert isinstance(found, Resolved), found
    return found.installation


def children(example: Example, *, passwords: Passwords = PASSWORDS) -> Sequence[Mapping[str, Any]]:
    """Every manifest that is applied for it, in that order."""
    found = resolved(example, passwords=passwords)
    assert isinstance(found, Resolved), found
    this = found.installation
    return [
        *found.secrets,
        *before_migration(this),
        *optional(this),
        migration_job(this, attempt=1),
        *after_migration(this),
    ]


def child(example: Example, kind: str, name: str = "", *, passwords: Passwords = PASSWORDS) -> Mapping[str, Any]:
    """The one child of that kind whose name ends so."""
    [found] = [
        manifest
        for manifest in children(example, passwords=passwords)
        if manifest["kind"] == kind and manifest["metadata"]["name"].endswith(name)
    ]
    return found


def pod_templates(example: Example, *, passwords: Passwords = PASSWORDS) -> Mapping[str, Mapping[str, Any]]:
    """The template of every workload, by its component."""
    return {
        manifest["spec"]["template"]["spec"]["containers"][0]["name"]: manifest["spec"]["template"]
        for manifest in children(example, passwords=passwords)
        if "template" in manifest.get("spec", {})
    }


def clear(secret: Mapping[str, Any]) -> dict[str, str]:
    """The decoded data of a Secret."""
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
