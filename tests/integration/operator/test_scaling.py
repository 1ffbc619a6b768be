"""The scaling loop over a real API server and a real queue: what it writes, as whom, and when it writes nothing."""

import asyncio
import base64
from dataclasses import replace

import pytest

from commonplace_operator.children.autoscaling import worker_hpa
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.scalingstatus import scaling_fields
from commonplace_operator.reconcile.children import put
from commonplace_operator.reconcile.scaling import scale
from commonplace_operator.resources import names
from tests.integration.operator.harness import until
from tests.integration.operator.scaling_site import DEPLOYMENT, Site, site

__all__ = ["site"]


async def test_a_backlog_gets_its_workers_and_the_number_explains_itself(site: Site) -> None:
    await site.queue(450)

    result = await site.look()

    assert (site.replicas, result) == (5, Result(requeue_after=0.0))
    assert site.conditions() == {"ScalingActive": ("True", "DesiredReplicas")}
    assert site.message("ScalingActive").startswith("5 workers: 450 queued / 100 for each worker")
    assert site.state is not None
    shown = scaling_fields(site.state)
    assert (shown["workers"], shown["queue"]["backlog"]) == ({"desiredReplicas": 5}, 450)
    assert site.told == [site.key], "the status is to be written"


async def test_only_the_autoscaler_owns_the_number_and_an_apply_of_the_rest_keeps_it(site: Site) -> None:
    assert (site.replicas, site.owners()) == (1, []), "the server's default, which nobody owns"
    await site.queue(250)
    await site.look()

    assert site.owners() == [(names.AUTOSCALER_MANAGER, "Apply", None)]
    owned = [
        e["fieldsV1"] for e in site.deployment["metadata"]["managedFields"] if e["manager"] == names.AUTOSCALER_MANAGER
    ]
    assert owned == [{"f:spec": {"f:replicas": {}}}]
    site.world.patch("MemoryRuntime", "rt", {"spec": {"workers": {"concurrency": 4}}})
    await site.apply_deployment()
    assert site.replicas == 3, "the main manager changed the template, not the number"


async def test_nothing_is_written_where_nothing_changes(site: Site) -> None:
    await site.queue(250)
    await site.look()
    spec = site.deployment["metadata"]["generation"]
    fields = site.deployment["metadata"]["managedFields"]
    for _ in range(3):
        await site.look()
    assert site.deployment["metadata"]["generation"] == spec
    assert [e for e in site.deployment["metadata"]["managedFields"] if "subresource" not in e] == [
        e for e in fields if "subresource" not in e
    ]
    assert site.told == [site.key], "and nobody is woken"


async def test_without_the_database_the_number_stays_and_the_condition_says_why(site: Site) -> None:
    await site.queue(450)
    await site.look()
    site.world.patch("Secret", "rt-db", {"data": {"uri": base64.b64encode(b"postgresql://u@127.0.0.1:9/x").decode()}})

    for _ in range(3):
        await site.look()

    assert site.replicas == 5
    assert site.conditions() == {"ScalingActive": ("False", "MetricsUnavailable")}
    told = site.message("ScalingActive")
    assert told == "5 workers, kept: the queue could not be seen: the database does not answer"
    assert site.told == [site.key] * 2, "the condition flipped once"


async def test_down_goes_by_one_and_takes_the_idle_pod(site: Site) -> None:
    site.spec(minReplicas=3)
    await site.look()
    await until(lambda: len(site.pods()) == 3, "three pods")
    busy = site.pods()[0]["metadata"]["name"]
    await site.run_job_on(f"{busy}-17")
    site.spec(minReplicas=1)

    await site.look()

    assert site.replicas == 2
    left = await until(lambda: (pods := site.pods()) and len(pods) == 2 and pods, "two pods")
    costs = {
        pod["metadata"]["name"]: (pod["metadata"].get("annotations") or {}).get(
            "controller.kubernetes.io/pod-deletion-cost"
        )
        for pod in left
    }
    assert costs.pop(busy) == "1"
    assert set(costs.values()) == {None}, "an idle pod costs nothing anyway, and needs no write"


async def test_in_manual_mode_the_number_is_the_objects_own(site: Site) -> None:
    await site.queue(450)
    site.spec(mode="Manual")
    scaled = site.world.path("MemoryRuntime", "rt") + "/scale"
    site.request("PATCH", scaled, {"spec": {"replicas": 2}}, content_type="application/merge-patch+json")

    await site.look()

    assert (site.replicas, site.owners()) == (2, [(names.AUTOSCALER_MANAGER, "Apply", None)])
    assert site.conditions() == {"ScalingActive": ("True", "ManualReplicas")}
    site.hpa(kind="MemoryRuntime", target="rt", api="commonplace.dev/v1alpha1")
    site.spec(maxReplicas=9)
    await site.look()
    assert "ScalingConflict" not in site.conditions(), "an autoscaler of the MemoryRuntime is what Manual is for"


@pytest.mark.parametrize("mode", ["HPA", "KEDA"])
async def test_where_another_scales_the_number_is_never_written(site: Site, mode: str) -> None:
    await site.queue(450)
    site.spec(mode=mode, prometheusAddress="http://prometheus:9090")
    await site.look()
    assert (site.replicas, site.owners()) == (1, [])
    assert site.conditions() == {"ScalingActive": ("True", "ExternalAutoscaler")}
    assert site.state is not None
    assert site.state.queue is not None
    assert site.state.queue.backlog == 450, "the queue is shown all the same"


@pytest.mark.parametrize("target", [("Deployment", DEPLOYMENT, "apps/v1"), ("MemoryRuntime", "rt", names.API_VERSION)])
async def test_a_foreign_autoscaler_is_a_conflict_until_it_is_gone(site: Site, target: tuple[str, str, str]) -> None:
    site.hpa(*target)
    await site.queue(450)

    await site.look()

    assert site.replicas == 1
    assert site.conditions() == {
        "ScalingActive": ("False", "ExternalAutoscaler"),
        "ScalingConflict": ("True", "ExternalScalerFound"),
    }
    assert f"HorizontalPodAutoscaler {site.world.namespace}/theirs scales {target[0]}" in site.message(
        "ScalingConflict"
    )
    site.drop_hpa()
    await site.look()
    assert (site.replicas, "ScalingConflict" in site.conditions()) == (5, False)


async def test_a_hand_that_scales_once_is_overruled_and_one_that_comes_back_is_a_conflict(site: Site) -> None:
    await site.queue(250)
    await site.look()
    site.scale_by_hand(1)
    await site.look()
    assert (site.replicas, site.owners()) == (3, [(names.AUTOSCALER_MANAGER, "Apply", None)])
    site.scale_by_hand(1)
    await site.look()
    assert site.replicas == 1
    assert site.conditions()["ScalingConflict"] == ("True", "ExternalScalerFound")
    assert 'Field manager "kubectl"' in site.message("ScalingConflict")


async def test_an_idle_runtime_is_woken_by_one_job(site: Site) -> None:
    site.spec(minReplicas=0, idleCooldownSeconds=0)
    await site.look()
    assert site.replicas == 0
    await site.queue(1)
    await site.look()
    assert site.replicas == 1


async def test_an_autoscaler_that_takes_over_from_none_is_given_workers_to_begin_with(site: Site) -> None:
    """HorizontalPodAutoscalers are off while there are no replicas, so no job would ever run again."""
    site.spec(minReplicas=0, idleCooldownSeconds=0)
    await site.look()
    assert site.replicas == 0
    site.spec(mode="HPA", minReplicas=2)
    await put(site.context, site.runtime(), worker_hpa(site.runtime()))
    await site.look()
    assert site.replicas == 2
    assert "ScalingConflict" not in site.conditions()
    # From here on the number is the autoscaler's.
    site.scale_by_hand(1)
    await site.look()
    assert site.replicas == 1


async def test_the_loop_ends_with_what_it_scales(site: Site) -> None:
    await site.look()
    site.request("DELETE", site.path("apps/v1", "deployments", DEPLOYMENT))
    assert (await site.look(), site.state) == (Result(), None)
    site.world.delete("MemoryRuntime", "rt")
    assert (await site.look(), site.state) == (Result(), None)


async def test_a_database_that_hangs_is_asked_less_often_than_it_takes(site: Site) -> None:
    """So that a few of them leave the workers of the loop to all others."""

    async def say_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    uri = base64.b64encode(f"postgresql://u:p@127.0.0.1:{port}/db".encode()).decode()
    site.world.patch("Secret", "rt-db", {"data": {"uri": uri}})

    result = await site.look()

    server.close()
    assert site.conditions()["ScalingActive"] == ("False", "MetricsUnavailable")
    assert result.requeue_after is not None
    assert result.requeue_after >= 20, "ten times the time-out of two seconds"


async def test_a_look_that_comes_too_early_is_put_off(site: Site) -> None:
    slow = replace(site.context, timings=replace(site.context.timings, scaling_seconds=5.0))
    await scale(slow, site.key)
    await site.queue(450)
    early = await scale(slow, site.key)
    assert early.requeue_after is not None
    assert 4 < early.requeue_after <= 5
    assert site.replicas == 1
    site.spec(maxReplicas=4)
    await scale(slow, site.key)
    assert site.replicas == 4, "an edit is acted on at once"
