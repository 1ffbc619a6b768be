"""What live Deployments, Jobs and pods are read as, and what the status says of them."""

from typing import Any

import pytest

from commonplace_operator.planning.managed import Pods, component_condition, pod_counts, unready_server
from commonplace_operator.planning.workloads import MigrationJob, PodTrouble, Workload, pod_troubles
from commonplace_operator.resources.reasons import ConditionType, Reason
from commonplace_runtime.contract import MigrationReport


def workload(*, replicas: int | None = None, generation: int = 2, **status: Any) -> Workload:
    return Workload.parse(
        {
            "metadata": {"generation": generation},
            "spec": {} if replicas is None else {"replicas": replicas},
            "status": {"observedGeneration": 2} | status,
        }
    )


def serving(number: int, **status: Any) -> Workload:
    counts = {"replicas": number, "updatedReplicas": number, "availableReplicas": number} | status
    return Workload.parse(
        {"metadata": {"generation": 1}, "spec": {"replicas": number}, "status": {"observedGeneration": 1} | counts}
    )


def pod(name: str, *, state: dict[str, Any] | None = None, created: str = "2026-01-01T00:00:00Z", **more: Any) -> Any:
    container = {"name": "worker", "image": "memory:9", "state": state or {}} | more.pop("container", {})
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": created,
            "labels": {"app.kubernetes.io/component": "worker"},
            **more.pop("metadata", {}),
        },
        "status": {"containerStatuses": [container], **more},
    }


def waiting(reason: str, message: str = "why") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def test_a_deployment_without_replicas_wants_one() -> None:
    assert (workload().wanted, workload().replicas, workload().is_rolled_out) == (1, 0, False)


def test_a_deployment_scaled_to_zero_has_rolled_out() -> None:
    found = workload(replicas=0)
    assert (found.wanted, found.available, found.is_rolled_out) == (0, 0, True)


def test_a_template_that_the_controller_has_not_seen_has_not_rolled_out() -> None:
    assert serving(3).is_rolled_out
    stale = Workload.parse(
        {
            "metadata": {"generation": 5},
            "spec": {"replicas": 1},
            "status": {"observedGeneration": 4, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
        }
    )
    assert not stale.is_rolled_out


def test_old_pods_beside_new_ones_are_no_finished_rollout() -> None:
    assert not serving(2, replicas=3, availableReplicas=3).is_rolled_out


def test_why_no_pod_can_be_made_is_read_from_the_deployment() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
    assert workload(replicas=2, conditions=[condition]).failure == "exceeded quota: pods"
    assert workload(replicas=2, conditions=[condition | {"status": "False"}]).failure is None


@pytest.mark.parametrize(
    ("found", "reason", "told"),
    [
        (pod("p", state=waiting("ImagePullBackOff")), Reason.IMAGE_PULL_FAILED, "image memory:9 cannot be pulled"),
        (pod("p", state=waiting("ErrImagePull")), Reason.IMAGE_PULL_FAILED, "(ErrImagePull): why"),
        (pod("p", state=waiting("InvalidImageName")), Reason.IMAGE_PULL_FAILED, "memory:9"),
        (
            pod("p", state=waiting("CreateContainerConfigError", 'secret "x" not found')),
            Reason.PODS_FAILING,
            'CreateContainerConfigError: secret "x" not found',
        ),
        (
            pod(
                "p",
                state=waiting("CrashLoopBackOff"),
                container={"lastState": {"terminated": {"exitCode": 78, "message": "set COMMONPLACE_PROVIDER\n"}}},
            ),
            Reason.PODS_FAILING,
            "exit code 78: its configuration is unusable; kubectl logs --previous says more: set COMMONPLACE_PROVIDER",
        ),
        (
            pod(
                "p",
                state=waiting("CrashLoopBackOff"),
                container={"lastState": {"terminated": {"exitCode": 137}}},
            ),
            Reason.PODS_FAILING,
            "exit code 137; kubectl logs",
        ),
        (
            pod(
                "p",
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available",
                    }
                ],
            ),
            Reason.PODS_NOT_CREATED,
            "not scheduled: 0/3 nodes are available",
        ),
    ],
)
def test_what_keeps_a_pod_from_working_is_named(found: Any, reason: Reason, told: str) -> None:
    [trouble] = pod_troubles([found])
    assert (trouble.component, trouble.reason) == ("worker", reason)
    assert trouble.message.startswith("pod p: ")
    assert told in trouble.message


def test_pods_that_work_start_or_go_are_no_trouble() -> None:
    going = pod("p", state=waiting("CrashLoopBackOff"), metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    fine = pod("p", state={"running": {}})
    starting = pod("p", state=waiting("ContainerCreating"))
    assert pod_troubles([going, fine, starting, {"metadata": {"name": "bare"}}]) == ()


def test_the_newest_pods_trouble_comes_first() -> None:
    old = pod("old", state=waiting("CrashLoopBackOff"))
    new = pod("new", state=waiting("ImagePullBackOff"), created="2026-01-02T00:00:00Z")
    assert [trouble.reason for trouble in pod_troubles([old, new])] == [Reason.IMAGE_PULL_FAILED, Reason.PODS_FAILING]


def test_a_very_long_message_is_cut() -> None:
    [trouble] = pod_troubles([pod("p", state=waiting("ErrImagePull", "x" * 10_000))])
    assert len(trouble.message) < 500


def condition(
    component: str, found: Workload, *troubles: PodTrouble, is_held: bool = False, steady: bool = False
) -> tuple[str, str]:
    pods = Pods(workloads={component: found}, troubles=troubles, steady=frozenset({component} if steady else ()))
    result = component_condition(ConditionType.WORKERS_AVAILABLE, component, pods, is_held=is_held)
    assert result is not None
    return result.status, result.reason


FAILING = PodTrouble(component="worker", reason=Reason.PODS_FAILING, message="ended")


def test_workers_that_are_still_to_come_take_nothing_from_those_that_serve() -> None:
    growing = serving(10, availableReplicas=2)
    assert condition("worker", growing) == ("True", "Available")
    assert condition("api", growing) == ("False", "Progressing")
    assert condition("worker", growing, FAILING) == ("False", "PodsFailing")
    assert condition("worker", serving(10, availableReplicas=0)) == ("False", "Progressing")


def test_a_number_that_the_controller_has_not_seen_yet_takes_nothing_from_workers_that_serve() -> None:
    """Only where nothing was applied: a template that was not seen yet is a rollout."""
    unseen = workload(replicas=5, generation=9, updatedReplicas=1, availableReplicas=1)
    assert condition("worker", unseen) == ("False", "Progressing")
    assert condition("worker", unseen, steady=True) == ("True", "Available")
    assert condition("api", unseen, steady=True) == ("False", "Progressing")
    assert condition("worker", unseen, FAILING, steady=True) == ("False", "PodsFailing")


def test_no_worker_is_well_where_none_is_wanted_and_no_api_never() -> None:
    assert condition("worker", serving(0)) == ("True", "ScaledToZero")
    assert condition("api", serving(0)) == ("False", "ScaledToZero")


def test_what_runs_is_available_while_its_successor_waits() -> None:
    unseen = workload(replicas=2, generation=9, updatedReplicas=0, availableReplicas=2)
    assert condition("api", unseen, is_held=True) == ("True", "Available")
    assert condition("api", unseen) == ("False", "Progressing")


def test_the_migration_waits_until_an_embedded_server_has_rolled_out() -> None:
    restarting = serving(1, updatedReplicas=0)
    assert unready_server(Pods(workloads={"postgres": serving(1)}), ["postgres"]) is None
    for pods in (Pods(workloads={}), Pods(workloads={"postgres": restarting})):
        found = unready_server(pods, ["postgres"])
        assert found is not None
        assert (found.reason, found.message) == ("Progressing", "The embedded Postgres starts")
    trouble = PodTrouble(component="postgres", reason=Reason.PODS_NOT_CREATED, message="not scheduled: no volume")
    found = unready_server(Pods(workloads={"postgres": restarting}, troubles=(trouble,)), ["postgres"])
    assert found is not None
    assert (found.reason, found.message) == (
        "PodsNotCreated",
        "The embedded Postgres does not run: not scheduled: no volume",
    )


def test_the_counts_are_those_of_the_scale_subresource() -> None:
    counts = pod_counts(Pods(workloads={"worker": serving(5, availableReplicas=3)}))
    assert counts == {"workers": {"replicas": 5, "readyReplicas": 3}}


def migration(conditions: list[dict[str, str]], termination: str | None = None, **metadata: Any) -> MigrationJob | None:
    body = {
        "metadata": {
            "name": "main-migrate-abc-2",
            "uid": "u",
            "labels": {"commonplace.dev/migration": "abc"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            **metadata,
        },
        "status": {"conditions": conditions},
    }
    ended = {"state": {"terminated": {"message": termination}}}
    pods: list[dict[str, Any]] = [
        {
            "metadata": {"name": "p", "ownerReferences": [{"uid": "u"}]},
            "status": {"containerStatuses": [ended]},
        },
        {"metadata": {"name": "other", "labels": {"job-name": "main-migrate-abc-2"}}},
    ]
    return MigrationJob.parse(body, pods if termination is not None else [])


def test_a_job_is_read_with_its_report() -> None:
    report = MigrationReport(outcome="failed", reason="SchemaNewer", message="newer", schema_version=99)
    failed = {"type": "Failed", "status": "True", "message": "limit", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    found = migration([failed], report.to_json() + "\n")
    assert found is not None
    assert (found.state, found.attempt, found.fingerprint, found.report) == ("failed", 2, "abc", report)
    assert found.note == "limit"


def test_what_a_pod_says_that_only_bears_the_label_is_not_believed() -> None:
    report = MigrationReport(outcome="failed", reason="DatabaseRolesMissing", message="run this", sql="DROP DATABASE x")
    said = {"state": {"terminated": {"message": report.to_json()}}}
    pod = {
        "metadata": {"name": "p", "labels": {"job-name": "main-migrate-abc-1"}, "ownerReferences": [{"uid": "other"}]},
        "status": {"containerStatuses": [said]},
    }
    labels = {"commonplace.dev/migration": "abc"}
    metadata = {"name": "main-migrate-abc-1", "uid": "u", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    found = MigrationJob.parse({"metadata": metadata}, [pod])
    assert found is not None
    assert (found.report, found.has_pod) == (None, False)


def test_a_job_without_an_end_runs_and_a_foreign_one_is_none() -> None:
    running = migration([{"type": "Failed", "status": "False"}], "the last lines of a log")
    assert running is not None
    assert (running.state, running.report) == ("running", None)
    done = migration([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}])
    assert done is not None
    assert done.state == "done"
    assert migration([], labels={}) is None
    assert migration([], name="main-migrate-abc") is None
    assert migration([], deletionTimestamp="2026-01-01T00:00:00Z") is None
