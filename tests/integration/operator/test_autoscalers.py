"""The objects of modes HPA and KEDA, as a real API server with KEDA's own schema takes them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from commonplace_operator.children.autoscaling import METRIC, worker_autoscaler, worker_hpa
from commonplace_operator.planning.rivals import rival_object
from commonplace_operator.reconcile.children import put
from e2e.cluster.control_plane import ControlPlane
from tests.integration.operator.harness import until
from tests.integration.operator.scaling_site import Site, site

__all__ = ["site"]
KEDA = Path(__file__).resolve().parents[2] / "charts" / "crds" / "keda.sh_scaledobjects.yaml"


@pytest.fixture
async def keda(control_plane: ControlPlane) -> AsyncIterator[None]:
    """KEDA's kind ScaledObject; no controller."""
    crd = next(document for document in yaml.safe_load_all(KEDA.read_text()) if document)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    with control_plane.api() as api:
        status, answer = api.request("POST", path, crd)
        assert status in {201, 409}, answer
        listing = "/apis/keda.sh/v1alpha1/scaledobjects"
        await until(lambda: api.request("GET", listing)[0] == 200, "KEDA's kind is served")
        yield
        # Whether a cluster has the kind is part of what other tests say.
        api.request("DELETE", f"{path}/scaledobjects.keda.sh")
        await until(lambda: api.request("GET", listing)[0] == 404, "KEDA's kind is gone")


async def test_the_hpa_is_taken_as_rendered_and_written_once(site: Site) -> None:
    site.spec(mode="HPA", minReplicas=2, maxReplicas=7, scaleDownStabilizationSeconds=86400)
    wanted = worker_autoscaler(site.runtime())
    assert wanted is not None

    first = await put(site.context, site.runtime(), wanted)
    second = await put(site.context, site.runtime(), wanted)

    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    spec = first["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], spec["scaleTargetRef"]["name"]) == (2, 7, "rt-worker")
    assert spec["metrics"][0]["external"]["metric"] == {
        "name": METRIC,
        "selector": {"matchLabels": {"runtime": f"{site.world.namespace}.rt"}},
    }
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 3600, "more is refused"
    assert rival_object(site.runtime(), [first], None) is None, "our own is no rival"


async def test_an_hpa_that_may_not_go_to_none_is_told_of(site: Site) -> None:
    site.spec(mode="HPA", minReplicas=0)
    await put(site.context, site.runtime(), worker_hpa(site.runtime(), to_zero=False))
    await site.look()
    assert "; one worker stays, for this cluster takes no minReplicas 0" in site.message("ScalingActive")
    site.spec(minReplicas=1)
    await site.look()
    assert "one worker stays" not in site.message("ScalingActive")


async def test_the_scaled_object_is_what_kedas_schema_knows(site: Site, keda: None) -> None:
    site.spec(mode="KEDA", minReplicas=0, maxReplicas=7, prometheusAddress="http://prometheus:9090")
    wanted = worker_autoscaler(site.runtime())
    assert wanted is not None

    body = await put(site.context, site.runtime(), wanted)

    assert pruned(wanted["spec"], body["spec"]) == [], "a field that the schema does not know is dropped"
    trigger = body["spec"]["triggers"][0]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert (body["spec"]["minReplicaCount"], body["spec"]["fallback"]["behavior"]) == (0, "currentReplicas")


async def test_a_foreign_scaled_object_is_a_conflict(site: Site, keda: None) -> None:
    spec = {"scaleTargetRef": {"name": "rt-worker"}, "triggers": [{"type": "cpu", "metadata": {"value": "60"}}]}
    site.request("POST", site.path("keda.sh/v1alpha1", "scaledobjects"), scaled_object(spec))
    await site.queue(450)
    await site.look()
    assert site.replicas == 1
    assert f"ScaledObject {site.world.namespace}/theirs scales Deployment rt-worker" in site.message("ScalingConflict")


def scaled_object(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "theirs"}, "spec": spec}


def pruned(wanted: Any, stored: Any, path: str = "spec") -> list[str]:
    """Paths of `wanted` that are not stored as they were sent."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        return [p for key, value in wanted.items() for p in pruned(value, stored.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(stored, list) and len(wanted) == len(stored):
        return [p for i, (a, b) in enumerate(zip(wanted, stored, strict=True)) for p in pruned(a, b, f"{path}[{i}]")]
    return [] if wanted == stored else [path]
