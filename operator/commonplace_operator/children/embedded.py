"""Postgres and Redis of one pod each, beside the API: for trying out, and said so in the status."""

from typing import Any, Final

from commonplace_operator.children.credentials import OWNER_PASSWORD, REDIS_PASSWORD
from commonplace_operator.children.installation import (
    POSTGRES,
    POSTGRES_PORT,
    REDIS,
    REDIS_PORT,
    Installation,
    SecretKey,
    child_name,
    component_labels,
    component_metadata,
    credentials_name,
    selector_labels,
)
from commonplace_operator.children.pods import container, pod_template, ports, secret, tcp_probe
from commonplace_operator.resources import names
from commonplace_runtime import contract

DATA_PATH: Final = "/var/lib/commonplace"
GRACE_SECONDS: Final = 60
REDIS_STORAGE: Final = "1Gi"
_POSTGRES_REQUESTS: Final = {"requests": {"cpu": "100m", "memory": "256Mi"}}
_REDIS_REQUESTS: Final = {"requests": {"cpu": "20m", "memory": "32Mi"}}


def postgres_stateful_set(this: Installation) -> dict[str, Any]:
    """PostgreSQL out of the runtime's own image, on a volume of its own."""
    password = SecretKey(name=credentials_name(this.runtime), key=OWNER_PASSWORD)
    storage = this.runtime.spec.database.storage
    the_container = container(
        this,
        POSTGRES,
        args=["embedded", "postgres", "--data-dir", DATA_PATH, "--port", str(POSTGRES_PORT)],
        env=[secret(contract.ENV_EMBEDDED_PASSWORD, password)],
        resources=_POSTGRES_REQUESTS,
        ports=ports(postgres=POSTGRES_PORT),
        # Long, for the recovery after a crash must not be shot.
        startupProbe=tcp_probe(POSTGRES_PORT, period=2, failures=150),
        livenessProbe=tcp_probe(POSTGRES_PORT, period=10, failures=6),
        readinessProbe={
            "exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(POSTGRES_PORT)]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        volumeMounts=[{"name": "data", "mountPath": DATA_PATH}],
    )
    return _stateful_set(this, POSTGRES, the_container, size=storage.size, class_name=storage.class_name)


def redis_stateful_set(this: Installation) -> dict[str, Any]:
    """Redis out of the runtime's own image, on a volume of its own."""
    password = SecretKey(name=child_name(this.runtime, REDIS), key=REDIS_PASSWORD)
    the_container = container(
        this,
        REDIS,
        args=["embedded", "redis", "--data-dir", DATA_PATH, "--port", str(REDIS_PORT)],
        env=[secret(contract.ENV_EMBEDDED_PASSWORD, password)],
        resources=_REDIS_REQUESTS,
        ports=ports(redis=REDIS_PORT),
        livenessProbe=tcp_probe(REDIS_PORT, period=10, failures=6),
        readinessProbe=tcp_probe(REDIS_PORT, period=5, failures=3),
        volumeMounts=[{"name": "data", "mountPath": DATA_PATH}],
    )
    class_name = this.runtime.spec.database.storage.class_name
    return _stateful_set(this, REDIS, the_container, size=REDIS_STORAGE, class_name=class_name)


def headless_service(this: Installation, component: str, port: int) -> dict[str, Any]:
    """The name under which the one pod is reached."""
    return {
        "apiVersion": names.SERVICE.api_version,
        "kind": names.SERVICE.kind,
        "metadata": _metadata(this, component),
        "spec": {
            "clusterIP": "None",
            "selector": selector_labels(this.runtime, component),
            "ports": [{"name": component, "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def _stateful_set(
    this: Installation, component: str, the_container: dict[str, Any], *, size: str, class_name: str | None
) -> dict[str, Any]:
    claim: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if class_name:
        claim["storageClassName"] = class_name
    return {
        "apiVersion": names.STATEFUL_SET.api_version,
        "kind": names.STATEFUL_SET.kind,
        "metadata": _metadata(this, component),
        "spec": {
            "replicas": 1,
            # In order, a pod that never gets ready is not replaced, not even by a template that would work.
            "podManagementPolicy": "Parallel",
            "serviceName": child_name(this.runtime, component),
            "selector": {"matchLabels": selector_labels(this.runtime, component)},
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": this.runtime.spec.deletion_policy,
                "whenScaled": "Retain",
            },
            "template": pod_template(this, component, the_container, grace_seconds=GRACE_SECONDS),
            "volumeClaimTemplates": [
                {"metadata": {"name": "data", "labels": component_labels(this.runtime, component)}, "spec": claim}
            ],
        },
    }


def _metadata(this: Installation, component: str) -> dict[str, Any]:
    return component_metadata(this.runtime, component)
