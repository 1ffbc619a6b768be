"""What the Prometheus operator is told of a managed runtime, where that is wanted."""

from typing import Any

from commonplace_operator.children.installation import (
    API,
    WORKER,
    Installation,
    component_metadata,
)
from commonplace_operator.children.pods import METRICS
from commonplace_operator.resources import names
from commonplace_runtime import contract


def service_monitor(this: Installation) -> dict[str, Any] | None:
    """Scrape the API, which shows the queue too, and the workers, which count calls; None where none is wanted."""
    runtime = this.runtime
    if not runtime.spec.monitoring.service_monitor:
        return None
    return {
        "apiVersion": names.SERVICE_MONITOR.api_version,
        "kind": names.SERVICE_MONITOR.kind,
        "metadata": component_metadata(runtime, API, name=runtime.name, labels=runtime.spec.monitoring.labels),
        "spec": {
            "selector": {
                "matchLabels": {names.LABEL_RUNTIME: runtime.name},
                "matchExpressions": [{"key": names.LABEL_COMPONENT, "operator": "In", "values": [API, WORKER]}],
            },
            "endpoints": [{"port": METRICS, "path": contract.METRICS_PATH, "interval": "15s"}],
        },
    }
