"""
The objects by which somebody else scales the workers: a HorizontalPodAutoscaler, or a ScaledObject of KEDA.

Both follow one metric that the API exports, `commonplace_queue_desired_workers`, so the formula stays in one place;
what they add is damping, which is asked for as the operator's own would be.
"""

from typing import Any, Final

from commonplace_operator.children.installation import (
    WORKER,
    child_name,
    component_metadata,
    runtime_label,
)
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime

METRIC: Final = "commonplace_queue_desired_workers"
LONGEST_WINDOW: Final = 3600
"""What the API server allows for a stabilisation, in seconds."""
SHRINK_SECONDS: Final = 60
POLLING_SECONDS: Final = 15
FAILURES: Final = 3


def worker_autoscaler(runtime: MemoryRuntime) -> dict[str, Any] | None:
    """The object of the mode that the spec names; None where the operator or a person scales."""
    wanted = runtime.spec.workers.autoscaling
    match wanted.mode:
        case "HPA":
            return worker_hpa(runtime, to_zero=True)
        case "KEDA":
            return worker_scaled_object(runtime, wanted.prometheus_address or "")
        case "Operator" | "Manual":
            return None


def worker_hpa(runtime: MemoryRuntime, *, to_zero: bool = False) -> dict[str, Any]:
    """
    HorizontalPodAutoscaler of a runtime's workers, for a metrics adapter that serves METRIC.

    to_zero: whether this cluster's API server takes minReplicas 0; else 1 stands for it.
    """
    wanted = runtime.spec.workers.autoscaling
    return {
        "apiVersion": names.AUTOSCALER.api_version,
        "kind": names.AUTOSCALER.kind,
        "metadata": _metadata(runtime),
        "spec": {
            "scaleTargetRef": _target(runtime),
            "minReplicas": max(wanted.min_replicas, 0 if to_zero else 1),
            "maxReplicas": wanted.max_replicas,
            "metrics": [
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": METRIC, "selector": {"matchLabels": {"runtime": runtime_label(runtime)}}},
                        # So many workers, divided by the workers there are, shall be one.
                        "target": {"type": "AverageValue", "averageValue": "1"},
                    },
                }
            ],
            "behavior": _behavior(runtime),
        },
    }


def worker_scaled_object(runtime: MemoryRuntime, prometheus_address: str) -> dict[str, Any]:
    """ScaledObject of a runtime's workers; KEDA asks the Prometheus at that address and makes the HPA itself."""
    wanted = runtime.spec.workers.autoscaling
    return {
        "apiVersion": names.SCALED_OBJECT.api_version,
        "kind": names.SCALED_OBJECT.kind,
        "metadata": _metadata(runtime),
        "spec": {
            "scaleTargetRef": _target(runtime),
            "minReplicaCount": wanted.min_replicas,
            "maxReplicaCount": wanted.max_replicas,
            "pollingInterval": POLLING_SECONDS,
            "cooldownPeriod": wanted.idle_cooldown_seconds,
            # What is not known takes nobody away.
            "fallback": {
                "failureThreshold": FAILURES,
                "behavior": "currentReplicas",
                "replicas": max(1, wanted.min_replicas),
            },
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(runtime)}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": prometheus_address,
                        # Equal on every replica of the API; absent rather than old. With the namespace: any pod
                        # may export a number for any runtime.
                        "query": f'max({METRIC}{{namespace="{runtime.namespace}",runtime="{runtime_label(runtime)}"}})',
                        "threshold": "1",
                        "activationThreshold": "0",
                        # KEDA's default reads a series that is gone as 0 and would scale to none.
                        "ignoreNullValues": "false",
                    },
                }
            ],
        },
    }


def _metadata(runtime: MemoryRuntime) -> dict[str, Any]:
    return component_metadata(runtime, WORKER)


def _target(runtime: MemoryRuntime) -> dict[str, str]:
    return {
        "apiVersion": names.DEPLOYMENT.api_version,
        "kind": names.DEPLOYMENT.kind,
        "name": child_name(runtime, WORKER),
    }


def _behavior(runtime: MemoryRuntime) -> dict[str, Any]:
    """
    Double or four more at once; down by a quarter or one a minute, after as long a look back.

    Who looks back for less than a minute wants to be quick, so the minute shrinks with it.
    """
    stabilization = runtime.spec.workers.autoscaling.scale_down_stabilization_seconds
    period = max(1, min(SHRINK_SECONDS, stabilization))
    window = min(stabilization, LONGEST_WINDOW)
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15},
                {"type": "Pods", "value": 4, "periodSeconds": 15},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": window,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 25, "periodSeconds": period},
                {"type": "Pods", "value": 1, "periodSeconds": period},
            ],
        },
    }
