"""What is said of scaling, to whom it is said, and who counts as somebody else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commonplace_operator.children.autoscaling import worker_hpa, worker_scaled_object
from commonplace_operator.planning.demand import Limit
from commonplace_operator.planning.rivals import Rival, rival_object
from commonplace_operator.planning.scaling import Decision, History
from commonplace_operator.planning.scalingstatus import QueueSample, ScalingState, scaling_conditions, scaling_fields
from commonplace_operator.reconcile.deletion_cost import host_name, pod_jobs
from commonplace_operator.reconcile.scaling_board import SHOW_AGAIN_SECONDS, SHOW_SECONDS, Memory, ScalingBoard, show
from commonplace_operator.resources import names
from commonplace_operator.resources.conditions import render_conditions
from commonplace_operator.resources.objects import MemoryRuntime
from tests.unit.operator.factories import runtime

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def decision(replicas: int = 4, *limits: Limit, need: int | None = 4) -> Decision:
    return Decision(
        replicas=replicas, need=need, explanation="because", limits=frozenset(limits), history=History(since=0)
    )


SEEN = ScalingState(
    mode="Operator",
    replicas=4,
    decision=decision(),
    queue=QueueSample(backlog=7, oldest_seconds=3.9, at=NOW),
)
RIVAL = Rival(message="HorizontalPodAutoscaler ns/theirs scales Deployment rt-worker")


@pytest.mark.parametrize(
    ("state", "status", "reason", "message"),
    [
        pytest.param(SEEN, "True", "DesiredReplicas", "because", id="scaled"),
        pytest.param(
            replace(SEEN, decision=decision(4, Limit.MOST)), "True", "ScalingLimited", "because", id="maxReplicas"
        ),
        pytest.param(
            replace(SEEN, decision=decision(4, Limit.STABILIZATION)), "True", "DesiredReplicas", "because", id="damped"
        ),
        pytest.param(
            replace(SEEN, decision=decision(need=None), unseen="the database does not answer"),
            "False",
            "MetricsUnavailable",
            "because: the database does not answer",
            id="not seen",
        ),
        pytest.param(
            replace(SEEN, mode="Manual", decision=None),
            "True",
            "ManualReplicas",
            "4 workers: spec.workers.replicas",
            id="Manual",
        ),
        pytest.param(
            replace(SEEN, mode="KEDA", decision=None),
            "True",
            "ExternalAutoscaler",
            "ScaledObject of this runtime sets the number of workers",
            id="KEDA",
        ),
        pytest.param(
            replace(SEEN, rival=RIVAL),
            "False",
            "ExternalAutoscaler",
            "Somebody else scales the workers; see ScalingConflict",
            id="a rival",
        ),
        pytest.param(
            replace(SEEN, forbidden="deployments is forbidden"),
            "False",
            "Forbidden",
            "The operator may not scale the workers: deployments is forbidden",
            id="no right",
        ),
    ],
)
def test_the_condition_says_who_scales_and_how(state: ScalingState, status: str, reason: str, message: str) -> None:
    told = scaling_conditions(state)[0]
    assert (told.type, told.status, told.reason, told.message) == ("ScalingActive", status, reason, message)


def test_a_conflict_is_listed_only_while_there_is_one() -> None:
    assert [c.type for c in scaling_conditions(SEEN)] == ["ScalingActive"]
    conflict = scaling_conditions(replace(SEEN, rival=RIVAL))[1]
    assert (conflict.type, conflict.status, conflict.message) == ("ScalingConflict", "True", RIVAL.message)


def test_the_status_has_the_number_and_the_queue() -> None:
    assert scaling_fields(SEEN) == {
        "workers": {"desiredReplicas": 4},
        "queue": {"backlog": 7, "oldestSeconds": 3, "sampleTime": "2026-01-01T00:00:00Z"},
    }
    assert scaling_fields(replace(SEEN, queue=None)) == {"workers": {"desiredReplicas": 4}}


# When the status is written


def later(backlog: int) -> ScalingState:
    return replace(SEEN, queue=QueueSample(backlog=backlog, oldest_seconds=3.9, at=NOW + timedelta(seconds=5)))


@pytest.mark.parametrize(
    ("state", "after", "written"),
    [
        pytest.param(later(7), SHOW_SECONDS, False, id="nothing but the time of the sample"),
        pytest.param(later(7), SHOW_AGAIN_SECONDS, True, id="which is shown after a while"),
        pytest.param(later(8), SHOW_SECONDS - 1, False, id="another backlog, too soon"),
        pytest.param(later(8), SHOW_SECONDS, True, id="another backlog, a minute later"),
        pytest.param(replace(SEEN, replicas=5, decision=decision(5)), 1, True, id="another number"),
        pytest.param(replace(SEEN, rival=RIVAL), 1, True, id="a conflict"),
        pytest.param(replace(SEEN, decision=decision(4, Limit.MOST)), 1, True, id="a condition's reason"),
        pytest.param(replace(SEEN, decision=decision(4, Limit.STEP)), 1, False, id="another sentence"),
    ],
)
def test_the_status_is_written_only_for_what_is_worth_it(state: ScalingState, after: float, written: bool) -> None:
    memory = Memory(uid="u")
    assert show(memory, SEEN, managed(), now=100), "the first look"
    assert show(memory, state, managed(), now=100 + after) == written
    assert (memory.shown == state) == written, "what is shown stays the same until it is worth a write"


def recorded(state: ScalingState) -> MemoryRuntime:
    """The object as it is after its status was written."""
    conditions = render_conditions(scaling_conditions(state), (), generation=1, now=NOW)
    body = {"metadata": {"name": "rt", "namespace": "ns"}, "spec": {"management": "Managed"}}
    return MemoryRuntime.parse({**body, "status": {"conditions": conditions, **scaling_fields(state)}})


@pytest.mark.parametrize(
    ("before", "written"),
    [
        pytest.param(SEEN, False, id="as it was"),
        pytest.param(later(7), False, id="but for the time of the sample"),
        pytest.param(later(8), True, id="another backlog"),
        pytest.param(replace(SEEN, decision=decision(5)), True, id="another number"),
        pytest.param(replace(SEEN, rival=RIVAL), True, id="a conflict that is over"),
    ],
)
def test_a_restart_writes_only_what_is_new(before: ScalingState, written: bool) -> None:
    board = ScalingBoard()
    memory = board.memory(("ns", "rt"), "u")
    assert show(memory, SEEN, recorded(before), now=100) == written
    assert (board.state(("ns", "rt")) is None) != written, "None: what is recorded stays"
    assert not show(memory, SEEN, recorded(before), now=101)
    assert show(memory, later(9), recorded(before), now=100 + SHOW_SECONDS)


def test_another_object_of_the_same_name_is_another_memory() -> None:
    board = ScalingBoard()
    show(board.memory(("ns", "rt"), "one"), SEEN, managed(), now=0)
    assert board.state(("ns", "rt")) == SEEN
    board.memory(("ns", "rt"), "two")
    assert board.state(("ns", "rt")) is None


# Rivals


def foreign(kind: str = "Deployment", name: str = "rt-worker", api: str = "apps/v1", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "theirs", "namespace": "ns"} | metadata,
        "spec": {"scaleTargetRef": {"kind": kind, "name": name, "apiVersion": api}},
    }


OF_KEDA: dict[str, Any] = {"ownerReferences": [{"kind": "ScaledObject", "name": "theirs"}]}
OF_RUNTIME = foreign("MemoryRuntime", "rt", names.API_VERSION)
SO = {"metadata": {"name": "theirs"}, "spec": {"scaleTargetRef": {"name": "rt-worker"}}}


def managed(mode: str = "Operator") -> MemoryRuntime:
    return runtime(management="Managed", workers={"autoscaling": {"mode": mode, "prometheusAddress": "http://p"}})


@pytest.mark.parametrize(
    ("hpas", "scaled_objects", "mode", "found"),
    [
        pytest.param([foreign()], None, "Operator", "HorizontalPodAutoscaler", id="an HPA of the Deployment"),
        pytest.param(
            [foreign("MemoryRuntime", "rt", names.API_VERSION)],
            None,
            "Operator",
            "HorizontalPodAutoscaler",
            id="of ours",
        ),
        pytest.param(
            [foreign("MemoryRuntime", "rt", names.API_VERSION)], None, "Manual", None, id="as Manual wants it"
        ),
        pytest.param([foreign()], None, "Manual", "HorizontalPodAutoscaler", id="past the MemoryRuntime"),
        pytest.param([foreign()], None, "HPA", "HorizontalPodAutoscaler", id="beside our own"),
        pytest.param([foreign(name="rt-api")], None, "Operator", None, id="of the API"),
        pytest.param([foreign(api="example.com/v1")], None, "Operator", None, id="of another group's Deployment"),
        pytest.param([foreign(deletionTimestamp="now")], None, "Operator", None, id="being deleted"),
        pytest.param([], [SO], "Operator", "ScaledObject", id="a ScaledObject, kind by default"),
        pytest.param([foreign(**OF_KEDA)], [SO], "Operator", "ScaledObject", id="KEDA's HPA is told of by its owner"),
        pytest.param([foreign(**OF_KEDA)], [], "Operator", None, id="whose ScaledObject is gone"),
        pytest.param([foreign(**OF_KEDA)], None, "Operator", "HorizontalPodAutoscaler", id="or is not shown"),
        pytest.param([], None, "Operator", None, id="nobody"),
    ],
)
def test_who_else_scales_is_found(
    hpas: list[dict[str, Any]], scaled_objects: list[dict[str, Any]] | None, mode: str, found: str | None
) -> None:
    rival = rival_object(managed(mode), hpas, scaled_objects)
    assert (rival and rival.message.split()[0]) == found


@pytest.mark.parametrize("render", [worker_hpa, lambda rt: worker_scaled_object(rt, "http://p")], ids=["HPA", "KEDA"])
def test_what_we_render_is_no_rival(render: Callable[[MemoryRuntime], dict[str, Any]]) -> None:
    ours = render(managed())
    assert rival_object(managed(), [ours], [ours]) is None


# What is rendered


def test_the_hpa_says_what_the_operator_would_do() -> None:
    rendered = worker_hpa(managed("HPA"))
    assert (rendered["metadata"]["name"], rendered["metadata"]["namespace"]) == ("rt-worker", "ns")
    assert rendered["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "rt-worker"},
        "minReplicas": 1,
        "maxReplicas": 10,
        "metrics": [
            {
                "type": "External",
                "external": {
                    "metric": {
                        "name": "commonplace_queue_desired_workers",
                        "selector": {"matchLabels": {"runtime": "ns.rt"}},
                    },
                    "target": {"type": "AverageValue", "averageValue": "1"},
                },
            }
        ],
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "selectPolicy": "Max",
                "policies": [
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                ],
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 300,
                "selectPolicy": "Max",
                "policies": [
                    {"type": "Percent", "value": 25, "periodSeconds": 60},
                    {"type": "Pods", "value": 1, "periodSeconds": 60},
                ],
            },
        },
    }


def test_the_hpa_shrinks_as_quickly_as_it_looks_back() -> None:
    quick = runtime(management="Managed", workers={"autoscaling": {"mode": "HPA", "scaleDownStabilizationSeconds": 0}})
    down = worker_hpa(quick)["spec"]["behavior"]["scaleDown"]
    assert (down["stabilizationWindowSeconds"], {p["periodSeconds"] for p in down["policies"]}) == (0, {1})


@pytest.mark.parametrize(("to_zero", "least"), [(True, 0), (False, 1)])
def test_an_hpa_goes_to_zero_only_where_the_cluster_takes_it(to_zero: bool, least: int) -> None:
    idle = runtime(management="Managed", workers={"autoscaling": {"mode": "HPA", "minReplicas": 0}})
    assert worker_hpa(idle, to_zero=to_zero)["spec"]["minReplicas"] == least


def test_keda_never_reads_a_missing_series_as_nothing_to_do() -> None:
    spec = worker_scaled_object(managed("KEDA"), "http://prometheus:9090")["spec"]
    [trigger] = spec["triggers"]
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus:9090",
        "query": 'max(commonplace_queue_desired_workers{namespace="ns",runtime="ns.rt"})',
        "threshold": "1",
        "activationThreshold": "0",
        "ignoreNullValues": "false",
    }
    assert spec["fallback"] == {"failureThreshold": 3, "behavior": "currentReplicas", "replicas": 1}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["cooldownPeriod"]) == (1, 10, 300)


# Which pod is busy


def test_jobs_are_counted_by_pod_whatever_its_processes_are_called() -> None:
    jobs = pod_jobs({"rt-worker-7c9d-x2k4j-1": 3, "rt-worker-7c9d-x2k4j-17": 1, "rt-worker-7c9d-p8w2m-1": 2})
    assert jobs == {"rt-worker-7c9d-x2k4j": 4, "rt-worker-7c9d-p8w2m": 2}
    assert jobs["rt-worker-7c9d-unknown"] == 0


def test_a_long_pod_name_is_cut_as_the_kubelet_cuts_it() -> None:
    assert host_name({"metadata": {"name": "a" * 62 + "-bcd"}}) == "a" * 62
