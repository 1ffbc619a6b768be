"""The API of a managed runtime: Deployment, Service, Ingress, disruption budget."""

from typing import Any, Final

from commonplace_operator.children.installation import (
    API,
    Installation,
    child_name,
    component_metadata,
    endpoint_of,
    queue_key,
    runtime_key,
    runtime_label,
    selector_labels,
)
from commonplace_operator.children.pods import (
    HTTP,
    METRICS,
    START_SECONDS,
    container,
    http_probe,
    plain,
    pod_template,
    ports,
    secret,
    served_environment,
    spread,
)
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_runtime import contract

DRAIN_SECONDS: Final = 5
"""How long a pod still serves after it was told to stop: until every node has heard that it goes."""
GRACE_SECONDS: Final = 45
"""`DRAIN_SECONDS`, and the 35 s that the API gives requests under way."""


def api_deployment(this: Installation) -> dict[str, Any]:
    """The API's pods; the old ones stay until new ones serve."""
    runtime = this.runtime
    template = pod_template(this, API, _container(this), grace_seconds=GRACE_SECONDS)
    template["spec"] |= spread(runtime, API)
    return {
        "apiVersion": names.DEPLOYMENT.api_version,
        "kind": names.DEPLOYMENT.kind,
        "metadata": _metadata(runtime),
        "spec": {
            "replicas": runtime.spec.api.replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector_labels(runtime, API)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _container(this: Installation) -> dict[str, Any]:
    return container(
        this,
        API,
        args=["api"],
        env=_environment(this),
        resources=this.runtime.spec.api.resources,
        ports=ports(**{HTTP: contract.API_PORT, METRICS: contract.METRICS_PORT}),
        startupProbe=http_probe(contract.HEALTH_PATH, HTTP, period=2, failures=START_SECONDS // 2),
        livenessProbe=http_probe(contract.HEALTH_PATH, HTTP, period=10, failures=3),
        readinessProbe=http_probe(contract.READINESS_PATH, HTTP, period=5, failures=2),
        lifecycle={"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
    )


def _environment(this: Installation) -> list[dict[str, Any]]:
    runtime = this.runtime
    scaling = runtime.spec.workers.autoscaling
    redis = queue_key(runtime)
    is_public = runtime.spec.public_url is not None or runtime.spec.ingress is not None
    return [
        secret(contract.ENV_DATABASE_URL, runtime_key(runtime)),
        *([secret(contract.ENV_REDIS_URL, redis)] if redis else []),
        plain(contract.ENV_HOST, "0.0.0.0"),  # noqa: S104 - inside the pod
        plain(contract.ENV_PORT, str(contract.API_PORT)),
        *([plain(contract.ENV_PUBLIC_URL, endpoint_of(runtime))] if is_public else []),
        *served_environment(this),
        plain("COMMONPLACE_RUNTIME_NAME", runtime_label(runtime)),
        plain("COMMONPLACE_SCALING_DRAIN_SECONDS", str(scaling.drain_target_seconds)),
        plain("COMMONPLACE_SCALING_AGE_SECONDS", str(scaling.target_queue_age_seconds)),
        # The bounds are the autoscaler's own: in the pod they would restart it with every change.
        plain("COMMONPLACE_SCALING_MIN_WORKERS", "0"),
        plain("COMMONPLACE_SCALING_MAX_WORKERS", "1000"),
    ]


def api_service(this: Installation) -> dict[str, Any]:
    """Where the cluster reaches the API and its metrics."""
    runtime = this.runtime
    return {
        "apiVersion": names.SERVICE.api_version,
        "kind": names.SERVICE.kind,
        "metadata": _metadata(runtime),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_labels(runtime, API),
            "ports": [
                {"name": HTTP, "port": contract.API_PORT, "targetPort": HTTP, "protocol": "TCP"},
                {"name": METRICS, "port": contract.METRICS_PORT, "targetPort": METRICS, "protocol": "TCP"},
            ],
        },
    }


def api_ingress(this: Installation) -> dict[str, Any] | None:
    """The way in from outside; None where none is wanted."""
    runtime = this.runtime
    wanted = runtime.spec.ingress
    if wanted is None:
        return None
    backend = {"service": {"name": child_name(runtime, API), "port": {"name": HTTP}}}
    spec: dict[str, Any] = {
        "rules": [{"host": wanted.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    }
    if wanted.class_name:
        spec["ingressClassName"] = wanted.class_name
    if wanted.tls:
        spec["tls"] = [{"hosts": [wanted.host], "secretName": wanted.tls.secret_name}]
    metadata = _metadata(runtime)
    metadata["annotations"] = dict(wanted.annotations)
    return {
        "apiVersion": names.INGRESS.api_version,
        "kind": names.INGRESS.kind,
        "metadata": metadata,
        "spec": spec,
    }


def disruption_budget(this: Installation, component: str) -> dict[str, Any]:
    """One pod of a component may be evicted at a time."""
    runtime = this.runtime
    return {
        "apiVersion": names.DISRUPTION_BUDGET.api_version,
        "kind": names.DISRUPTION_BUDGET.kind,
        "metadata": component_metadata(runtime, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector_labels(runtime, component)},
            # A pod that does not serve must not keep a node from being emptied.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _metadata(runtime: MemoryRuntime) -> dict[str, Any]:
    return component_metadata(runtime, API)
