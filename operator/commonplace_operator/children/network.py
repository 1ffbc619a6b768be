"""
Network policies of a managed runtime: nothing but what is named here comes in or goes out.

Who is outside is told by port, for a policy cannot name a host: databases and model endpoints may be anywhere.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from commonplace_operator.children.installation import (
    API,
    MIGRATE,
    POSTGRES,
    POSTGRES_PORT,
    REDIS,
    REDIS_PORT,
    WORKER,
    Installation,
    component_metadata,
    selector_labels,
)
from commonplace_operator.resources import names
from commonplace_runtime import contract

DNS_PORTS: Final = (53, 5353)
"""A policy is judged by the pod's port, and OpenShift's DNS pods listen on the second."""
HTTPS_PORT: Final = 443


def network_policies(this: Installation) -> tuple[dict[str, Any], ...]:
    """One that denies, and one for each component that allows."""
    stores = [*this.database_ports, *this.queue_ports]
    found = [
        _policy(this, "deny", {names.LABEL_RUNTIME: this.runtime.name}, ingress=None, egress=None),
        _component(this, API, inward=[contract.API_PORT, contract.METRICS_PORT], outward=stores),
        _component(
            this,
            WORKER,
            inward=[contract.METRICS_PORT],
            outward=[*stores, *this.provider_ports],
        ),
        _component(this, MIGRATE, inward=[], outward=this.migration_ports),
    ]
    if this.is_embedded:
        found.append(_component(this, POSTGRES, inward=[POSTGRES_PORT], outward=None))
    if this.runtime.spec.queue is not None and this.runtime.spec.queue.embedded:
        found.append(_component(this, REDIS, inward=[REDIS_PORT], outward=None, only_own=True))
    return tuple(found)


def _component(
    this: Installation,
    component: str,
    *,
    inward: Iterable[int],
    outward: Iterable[int] | None,
    only_own: bool = False,
) -> dict[str, Any]:
    source = [{"podSelector": {"matchLabels": {names.LABEL_RUNTIME: this.runtime.name}}}] if only_own else None
    ingress = [_rule(port, "from", source) for port in inward]
    egress = None if outward is None else [_dns(), *(_rule(port, "to", None) for port in sorted(set(outward)))]
    return _policy(this, component, selector_labels(this.runtime, component), ingress=ingress, egress=egress)


def _rule(port: int, direction: str, peers: list[dict[str, Any]] | None) -> dict[str, Any]:
    rule: dict[str, Any] = {"ports": [{"port": port, "protocol": "TCP"}]}
    return rule if peers is None else rule | {direction: peers}


def _dns() -> dict[str, Any]:
    return {"ports": [{"port": port, "protocol": protocol} for port in DNS_PORTS for protocol in ("UDP", "TCP")]}


def _policy(
    this: Installation,
    name: str,
    chosen: Mapping[str, str],
    *,
    ingress: list[dict[str, Any]] | None,
    egress: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    spec: dict[str, Any] = {"podSelector": {"matchLabels": dict(chosen)}, "policyTypes": ["Ingress", "Egress"]}
    if ingress:
        spec["ingress"] = ingress
    if egress:
        spec["egress"] = egress
    return {
        "apiVersion": names.NETWORK_POLICY.api_version,
        "kind": names.NETWORK_POLICY.kind,
        "metadata": component_metadata(this.runtime, name),
        "spec": spec,
    }
