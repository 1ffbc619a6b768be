"""All children of a managed runtime, in the order in which they are applied."""

from collections.abc import Mapping, Sequence
from typing import Any

from commonplace_operator.children.accounts import service_account
from commonplace_operator.children.api import api_deployment, api_ingress, api_service, disruption_budget
from commonplace_operator.children.autoscaling import worker_autoscaler
from commonplace_operator.children.embedded import headless_service, postgres_stateful_set, redis_stateful_set
from commonplace_operator.children.installation import (
    API,
    POSTGRES,
    POSTGRES_PORT,
    REDIS,
    REDIS_PORT,
    WORKER,
    Installation,
)
from commonplace_operator.children.monitoring import service_monitor
from commonplace_operator.children.network import network_policies
from commonplace_operator.children.worker import worker_deployment, worker_service

Manifest = Mapping[str, Any]


def before_migration(this: Installation) -> Sequence[Manifest]:
    """What does no harm before the migration."""
    queue = this.runtime.spec.queue
    found = [
        service_account(this),
        *network_policies(this),
        api_service(this),
        worker_service(this),
        disruption_budget(this, API),
        disruption_budget(this, WORKER),
    ]
    if this.is_embedded:
        found += [headless_service(this, POSTGRES, POSTGRES_PORT), postgres_stateful_set(this)]
    if queue is not None and queue.embedded:
        found += [headless_service(this, REDIS, REDIS_PORT), redis_stateful_set(this)]
    if ingress := api_ingress(this):
        found.append(ingress)
    return found


def optional(this: Installation) -> Sequence[Manifest]:
    """Objects of kinds that a cluster may not have."""
    return [manifest for manifest in (service_monitor(this), worker_autoscaler(this.runtime)) if manifest is not None]


def after_migration(this: Installation) -> Sequence[Manifest]:
    """What needs the schema."""
    return [api_deployment(this), worker_deployment(this)]
