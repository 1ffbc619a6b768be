"""What all pods of a managed runtime share: restricted Pod Security, spreading, probes, environment."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from commonplace_operator.children.installation import (
    Installation,
    SecretKey,
    child_name,
    component_labels,
    selector_labels,
)
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_runtime import contract

USER_ID: Final = 65532
DEFAULT_REQUESTS: Final = {"requests": {"cpu": "50m", "memory": "192Mi"}}
HTTP: Final = "http"
METRICS: Final = "metrics"
START_SECONDS: Final = 150
"""Longer than a process waits for Postgres at its start, so that it is the one to say why it ends."""

POD_SECURITY: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def plain(name: str, value: str) -> dict[str, Any]:
    """
    An environment variable with a value for everybody to see.

    The kubelet would put variables before it, secret ones too, in the place of `$(NAME)`: so each `$` is doubled.
    """
    return {"name": name, "value": value.replace("$", "$$")}


def secret(name: str, key: SecretKey) -> dict[str, Any]:
    """An environment variable that only the Secret holds."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}


def http_probe(path: str, port: str, *, period: int, failures: int) -> dict[str, Any]:
    """Ask by HTTP every `period` seconds; `failures` in a row count."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def tcp_probe(port: int, *, period: int, failures: int) -> dict[str, Any]:
    """Dial every `period` seconds; `failures` in a row count."""
    return {"tcpSocket": {"port": port}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def ports(**numbers: int) -> list[dict[str, Any]]:
    """Named TCP ports of a container."""
    return [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in numbers.items()]


def container(
    this: Installation,
    component: str,
    *,
    args: Sequence[str],
    env: Sequence[Mapping[str, Any]],
    resources: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """The one container of a component's pods; an entry of `more` that is None is left out."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, *more.pop("volumeMounts", ())]  # noqa: S108 - a mount
    return {
        "name": component,
        "image": this.image,
        "imagePullPolicy": this.runtime.spec.image.pull_policy,
        "args": list(args),
        "env": [dict(variable) for variable in env],
        "resources": dict(resources or DEFAULT_REQUESTS),
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": mounts,
        **{name: value for name, value in more.items() if value is not None},
    }


def pod_template(
    this: Installation, component: str, the_container: Mapping[str, Any], *, grace_seconds: int, restart: str = "Always"
) -> dict[str, Any]:
    """The template of a component's pods. It holds nothing that changes without a reason to restart them."""
    runtime = this.runtime
    template: dict[str, Any] = {
        "metadata": {"labels": component_labels(runtime, component)},
        "spec": {
            "serviceAccountName": account_name(runtime),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": restart,
            "securityContext": dict(POD_SECURITY),
            "terminationGracePeriodSeconds": grace_seconds,
            "containers": [dict(the_container)],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    if fingerprint := this.credentials.get(component):
        template["metadata"]["annotations"] = {names.ANNOTATION_CREDENTIALS_HASH: fingerprint}
    if runtime.spec.image.pull_secrets:
        template["spec"]["imagePullSecrets"] = [{"name": name} for name in runtime.spec.image.pull_secrets]
    return template


def spread(runtime: MemoryRuntime, component: str) -> dict[str, Any]:
    """Over zones and nodes as far as there are several: a wish, so that one node is enough."""
    chooser = {"matchLabels": selector_labels(runtime, component)}
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": chooser,
            }
        ],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {"labelSelector": chooser, "topologyKey": "kubernetes.io/hostname"},
                    }
                ]
            }
        },
    }


def account_name(runtime: MemoryRuntime) -> str:
    """
    The ServiceAccount of all pods of a runtime; it may do nothing, and no token of it is mounted.

    Not the runtime's own name: `default` is taken in every namespace.
    """
    return child_name(runtime, "runtime")


def served_environment(this: Installation) -> list[dict[str, Any]]:
    """What api and workers both read: where metrics are served, and how much a worker does at once."""
    workers = this.runtime.spec.workers
    return [
        plain("COMMONPLACE_METRICS_HOST", "0.0.0.0"),  # noqa: S104 - inside the pod
        plain(contract.ENV_METRICS_PORT, str(contract.METRICS_PORT)),
        plain(contract.ENV_CONCURRENCY, str(workers.concurrency)),
    ]
