"""A managed MemoryRuntime: a real API server, Kubernetes' own controllers, a real database, and no kubelet."""

from typing import Any

import pytest
import yaml

from commonplace_runtime import contract
from commonplace_runtime.contract import MigrationReport
from tests.integration.operator.harness import until
from tests.integration.operator.kubelet import MERGE, ManagedWorld, Writes
from tests.unit.operator.managed import EXAMPLES, Example, children

CHILDREN = {
    "Secret": ["main-database"],
    "ServiceAccount": ["main-runtime"],
    "Service": ["main-api", "main-worker"],
    "PodDisruptionBudget": ["main-api", "main-worker"],
    "NetworkPolicy": ["main-api", "main-deny", "main-migrate", "main-worker"],
}


async def test_pods_come_after_the_migration_and_teams_do_not_wait_for_pods(managed_world: ManagedWorld) -> None:
    world = managed_world
    world.managed()
    job = await world.job()
    for kind, expected in CHILDREN.items():
        assert world.names(kind) == expected
    assert world.names("Deployment") == []
    assert (await world.reason("MemoryRuntime", "main", "MigrationPending"))["status"] == "False"

    report = await world.run_migration(job)

    assert (report.outcome, report.schema_version) == ("migrated", contract.SCHEMA_VERSION)
    await until(lambda: world.names("Deployment") == ["main-api", "main-worker"], "the Deployments")
    await world.reason("MemoryRuntime", "main", "SchemaCurrent", "SchemaCurrent")
    world.create("MemoryTeam", "team", {"runtimeRef": {"name": "main"}})
    world.key()
    await world.ready("ApiKey", "key")
    assert world.condition("MemoryRuntime", "main")["reason"] == "Progressing"
    secret = world.secret("key") or {}
    assert secret["url"] == f"http://main-api.{world.namespace}.svc:8787"
    assert await world.works(secret["token"])

    body = await world.settled()
    assert world.condition("MemoryRuntime", "main")["message"] == (
        f"Version {contract.VERSION} serves at http://main-api.{world.namespace}.svc:8787"
    )
    status = body["status"]
    assert (status["version"], status["schemaVersion"]) == (contract.VERSION, contract.SCHEMA_VERSION)
    assert (status["database"], status["api"]) == ("External", {"replicas": 1, "readyReplicas": 1})
    await until(lambda: "RolledOut" in world.event_reasons("main"), "the Event")
    assert {"Migrated", "RolledOut"} <= set(world.event_reasons("main"))


async def test_what_runs_connects_as_roles_of_its_own(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    [container] = world.template("api")["spec"]["containers"]
    serving = world.environment_of(container)[contract.ENV_DATABASE_URL]
    rows = await world.sql.fetch(
        "SELECT rolname, rolsuper, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname LIKE 'commonplace\\__%\\_%'"
        " AND rolcanlogin AND $1 LIKE '%' || rolname || '%'",
        serving,
    )
    [role] = rows
    assert role["rolname"].startswith("commonplace_runtime_")
    assert {role["rolsuper"], role["rolcreaterole"], role["rolbypassrls"]} == {False}
    assert world.owner_uri not in [*world.environment_of(container).values()]


async def test_nothing_is_written_where_nothing_changed(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed(
        ingress={"host": "memory.example.com", "annotations": {"a": "b"}, "tls": {"secretName": "tls"}},
        api={"replicas": 1, "resources": {"requests": {"cpu": "1000m"}, "limits": {}}},
        workers={"resources": {"requests": {"memory": "1024Mi"}}},
    )
    [process] = world.operators
    figures = Writes(process=process)

    async def passes_again() -> None:
        seen = figures.passes()
        world.annotate("MemoryRuntime", "main", touched=str(seen))
        await until(lambda: figures.passes() > seen, "another pass")

    await passes_again()
    versions = {(kind, name): (world.get(kind, name) or {})["metadata"]["resourceVersion"]
                for kind in (*CHILDREN, "Deployment", "Job", "Ingress") for name in world.names(kind)}  # fmt: skip
    before = figures.count()
    for _ in range(3):
        await passes_again()
    assert figures.count() == before

    process.restart()
    await until(lambda: "operator_started" in process.log.rpartition("operator_stopping")[2], "the restart")
    await until(lambda: figures.passes() >= 1, "a pass of the new process")
    await passes_again()
    # The new process has seen the queue for the first time, and the status says when.
    assert figures.count() == figures.figure("commonplace_operator_writes_total", 'verb="status"') <= 1
    assert versions == {key: (world.get(*key) or {})["metadata"]["resourceVersion"] for key in versions}


async def test_the_embedded_trial_writes_nothing_more_once_it_runs(managed_world: ManagedWorld) -> None:
    world = managed_world
    world.create("MemoryRuntime", "main", {"database": {"embedded": True}, "queue": {"embedded": True}})
    await until(lambda: world.names("StatefulSet") == ["main-postgres", "main-redis"], "the StatefulSets")
    condition = await world.reason("MemoryRuntime", "main", "Progressing")
    assert condition["message"] == "The embedded Postgres starts"
    assert world.names("Job") == []
    assert world.condition("MemoryRuntime", "main", "TrialOnly")["status"] == "True"

    def is_up() -> bool:
        world.serve("postgres", "redis")
        return bool(world.names("Job"))

    await until(is_up, "the migration after Postgres")
    figures = Writes(process=world.operators[0])
    seen = figures.passes()
    before = figures.figure("commonplace_operator_writes_total", 'kind="StatefulSet"')
    world.annotate("MemoryRuntime", "main", touched="1")
    await until(lambda: figures.passes() > seen, "another pass")
    assert figures.figure("commonplace_operator_writes_total", 'kind="StatefulSet"') == before == 2

    # The volume stays as it is; everything else still follows.
    world.patch(
        "MemoryRuntime", "main", {"spec": {"database": {"storage": {"size": "99Gi"}}, "deletionPolicy": "Delete"}}
    )

    def policy() -> Any:
        spec = (world.get("StatefulSet", "main-postgres") or {})["spec"]
        return spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"]

    await until(lambda: policy() == "Delete", "the new policy")
    [claim] = (world.get("StatefulSet", "main-postgres") or {})["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "8Gi"


async def test_an_embedded_database_stays_until_another_one_serves_and_its_volume_for_good(
    managed_world: ManagedWorld,
) -> None:
    world = managed_world
    world.create(
        "MemoryRuntime", "main", {"database": {"embedded": True}, "deletionPolicy": "Delete", "api": {"replicas": 1}}
    )

    def migrating() -> dict[str, Any] | None:
        world.serve("postgres")
        return world.running_job()

    job = await until(migrating, "the migration of the embedded database")
    done = MigrationReport(outcome="migrated", reason="Migrated", message="", schema_version=contract.SCHEMA_VERSION)
    await world.end_job(job, code=0, message=done.to_json())
    await until(lambda: world.names("Deployment") == ["main-api", "main-worker"], "the Deployments")

    def claim() -> dict[str, Any]:
        path = f"/api/v1/namespaces/{world.namespace}/persistentvolumeclaims/data-main-postgres-0"
        status, answer = world.api.request("GET", path)
        assert status == 200, answer
        return dict(answer["metadata"])

    await until(lambda: claim().get("ownerReferences"), "the volume goes with the runtime")

    world.put_secret("main-owner", uri=world.owner_uri)
    database = {"embedded": None, "ownerSecretRef": {"name": "main-owner"}}
    world.patch("MemoryRuntime", "main", {"spec": {"database": database}})
    other = job["metadata"]["labels"]["commonplace.dev/migration"]
    job = await until(lambda: world.running_job(other_than=other), "the migration of the other database")
    await world.reason("MemoryRuntime", "main", "MigrationPending")
    assert world.names("StatefulSet") == ["main-postgres"]
    assert "main-postgres" in world.names("Service")

    await world.run_migration(job)
    await world.settled()
    await world.gone("StatefulSet", "main-postgres")
    await world.gone("Service", "main-postgres")
    assert "deletionTimestamp" not in claim()
    assert not claim().get("ownerReferences")


async def test_a_broken_image_of_the_embedded_server_can_be_put_right(managed_world: ManagedWorld) -> None:
    world = managed_world
    world.create("MemoryRuntime", "main", {"database": {"embedded": True}, "image": {"tag": "no-such"}})
    [pod] = await until(lambda: world.find("Pod", component="postgres"), "the pod")
    wrong = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    world.pod_status(pod, phase="Pending", state=wrong, is_ready=False)
    world.annotate("MemoryRuntime", "main", touched="1")
    condition = await world.reason("MemoryRuntime", "main", "ImagePullFailed")
    assert "commonplace/runtime:no-such cannot be pulled" in condition["message"]

    world.patch("MemoryRuntime", "main", {"spec": {"image": {"tag": "right"}}})

    def image() -> str:
        pods = world.find("Pod", component="postgres")
        return pods[0]["spec"]["containers"][0]["image"] if pods else ""

    await until(lambda: image() == "commonplace/runtime:right", "the pod of the right image")


DRIFTS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "image": (
        "Deployment",
        "main-api",
        [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil"}],
    ),
    "label": (
        "Deployment",
        "main-worker",
        [{"op": "replace", "path": "/metadata/labels/app.kubernetes.io~1component", "value": "other"}],
    ),
    "lost labels": ("Deployment", "main-api", [{"op": "remove", "path": "/metadata/labels"}]),
    "Service port": ("Service", "main-api", [{"op": "replace", "path": "/spec/ports/0/port", "value": 1}]),
    "value beside valueFrom": (
        "Deployment",
        "main-api",
        [
            {
                "op": "replace",
                "path": "/spec/template/spec/containers/0/env/0",
                "value": {"name": contract.ENV_DATABASE_URL, "value": "postgresql://evil/db"},
            }
        ],
    ),
    "policy": ("NetworkPolicy", "main-deny", [{"op": "replace", "path": "/spec/policyTypes", "value": ["Ingress"]}]),
    "budget": ("PodDisruptionBudget", "main-api", [{"op": "replace", "path": "/spec/maxUnavailable", "value": 9}]),
    "credentials": ("Secret", "main-database", [{"op": "replace", "path": "/data/runtime-uri", "value": "eA=="}]),
}


@pytest.mark.parametrize("drift", DRIFTS)
async def test_what_somebody_changed_is_put_back(managed_world: ManagedWorld, drift: str) -> None:
    world = managed_world
    await world.installed()
    kind, name, operations = DRIFTS[drift]

    def said() -> Any:
        body = world.get(kind, name) or {}
        return body.get("spec"), body.get("data"), (body["metadata"].get("labels") or {})

    before = said()
    status, answer = world.api.request(
        "PATCH",
        f"{world.path(kind, name)}?fieldManager=somebody",
        operations,
        content_type="application/json-patch+json",
    )
    assert status == 200, answer
    assert said() != before

    await until(lambda: said() == before, f"{kind} {name} put back; now {said()}")
    await world.settled()
    # Ownership is handed back in a write of its own, after the one that put the fields back.
    await until(
        lambda: ("commonplace-operator", "Update") not in world.manager(kind, name), "our fields owned by applying"
    )


async def test_a_field_that_a_later_spec_leaves_out_goes_even_after_a_contest(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed(provider={"name": "extractive", "model": "some"})
    path = f"{world.path('Deployment', 'main-worker')}?fieldManager=somebody"
    env = world.template("worker")["spec"]["containers"][0]["env"]
    place = [entry["name"] for entry in env].index(contract.ENV_DATABASE_URL)
    wrong = {"name": contract.ENV_DATABASE_URL, "value": "x"}
    where = f"/spec/template/spec/containers/0/env/{place}"
    world.api.request(
        "PATCH", path, [{"op": "replace", "path": where, "value": wrong}], content_type="application/json-patch+json"
    )
    await until(lambda: world.template("worker")["spec"]["containers"][0]["env"] == env, "put back")

    world.patch("MemoryRuntime", "main", {"spec": {"provider": {"model": None}}})

    await until(
        lambda: contract.ENV_MODEL not in [e["name"] for e in world.template("worker")["spec"]["containers"][0]["env"]],
        "the variable gone",
    )


async def test_a_strangers_object_is_told_and_not_touched(managed_world: ManagedWorld) -> None:
    world = managed_world
    body = {"metadata": {"name": "main-api"}, "spec": {"ports": [{"port": 80}]}}
    status, theirs = world.api.request("POST", world.path("Service"), body)
    assert status == 201

    world.managed()
    condition = await world.reason("MemoryRuntime", "main", "ChildConflict")

    assert f"Service {world.namespace}/main-api exists and is not the operator's" in condition["message"]
    live = world.get("Service", "main-api") or {}
    assert live["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    world.delete("Service", "main-api")
    await world.job()


async def test_what_is_wanted_no_more_is_deleted(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed(ingress={"host": "memory.example.com"})
    assert world.names("Ingress") == ["main-api"]

    world.patch("MemoryRuntime", "main", {"spec": {"ingress": None}})

    await world.gone("Ingress", "main-api")


async def test_only_the_operator_owns_what_it_applied_and_replicas_are_another_ones(
    managed_world: ManagedWorld,
) -> None:
    world = managed_world
    await world.installed()
    path = f"{world.path('Deployment', 'main-worker')}?fieldManager=commonplace-autoscaler&force=true"
    applied = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "main-worker"},
        "spec": {"replicas": 4},
    }
    status, answer = world.api.request("PATCH", path, applied, content_type="application/apply-patch+yaml")
    assert status == 200, answer
    await until(lambda: len(world.find("Pod", component="worker")) == 4, "four pods")
    await world.settled()

    world.patch("MemoryRuntime", "main", {"spec": {"workers": {"concurrency": 3}}})
    await until(
        lambda: (
            {"name": contract.ENV_CONCURRENCY, "value": "3"} in world.template("worker")["spec"]["containers"][0]["env"]
        ),
        "the new template",
    )

    assert (world.get("Deployment", "main-worker") or {})["spec"]["replicas"] == 4
    ours = ("commonplace-operator", "Apply")
    assert world.manager("Deployment", "main-worker") == {ours, ("commonplace-autoscaler", "Apply")}
    for kind in ("Deployment", "Service", "NetworkPolicy", "Secret", "ServiceAccount", "PodDisruptionBudget"):
        for name in world.names(kind):
            if name != "main-worker" or kind != "Deployment":
                assert world.manager(kind, name) == {ours}, (kind, name)


async def test_workers_that_are_scaled_up_do_not_make_the_runtime_unready(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    since = world.condition("MemoryRuntime", "main")["lastTransitionTime"]
    world.api.request("PATCH", world.path("Deployment", "main-worker"), {"spec": {"replicas": 5}}, content_type=MERGE)
    await until(
        lambda: (world.get("MemoryRuntime", "main") or {})["status"]["workers"]["replicas"] == 5, "five in the status"
    )
    assert world.condition("MemoryRuntime", "main", "WorkersAvailable")["message"] == "1 of 5 pods serve"
    ready = world.condition("MemoryRuntime", "main")
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", since)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
async def test_the_api_server_takes_every_golden_manifest(empty_world: ManagedWorld, example: Example) -> None:
    """As a dry run, in a namespace that enforces restricted Pod Security; a ServiceMonitor's kind is not installed."""
    world = empty_world
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    world.api.request(
        "PATCH", f"/api/v1/namespaces/{world.namespace}", {"metadata": {"labels": labels}}, content_type=MERGE
    )
    await until(lambda: world.get("ServiceAccount", "default"), "the namespace's own ServiceAccount")
    for manifest in children(example):
        if manifest["kind"] == "ServiceMonitor":
            continue
        body = {**manifest, "metadata": manifest["metadata"] | {"namespace": world.namespace}}
        path = world.path(manifest["kind"], manifest["metadata"]["name"])
        query = "?dryRun=All&fieldManager=commonplace-operator&force=true&fieldValidation=Strict"
        status, answer = world.api.request("PATCH", path + query, body, content_type="application/apply-patch+yaml")
        assert status in {200, 201}, (yaml.safe_dump(manifest), answer)
        template = manifest.get("spec", {}).get("template")
        if template:
            pod = {"metadata": {"name": "p", "labels": template["metadata"]["labels"]}, "spec": dict(template["spec"])}
            # A dry run made no ServiceAccount, and the data volume is the StatefulSet's to add.
            pod["spec"].pop("serviceAccountName")
            pod["spec"]["volumes"] = [*pod["spec"]["volumes"], {"name": "data", "emptyDir": {}}]
            status, answer = world.api.request("POST", f"{world.path('Pod')}?dryRun=All", pod)
            assert status == 201, answer


async def test_a_migration_that_ended_badly_leaves_what_runs_as_it_is(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    before = world.template("api"), world.template("worker")
    world.patch("MemoryRuntime", "main", {"spec": {"image": {"tag": "next"}}})
    report = MigrationReport(outcome="failed", reason="MigrationFailed", message="a lock was not to be had")
    await world.fail_job(report)

    condition = await world.reason("MemoryRuntime", "main", "MigrationFailed")

    assert "a lock was not to be had. What runs goes on running" in condition["message"]
    assert (world.template("api"), world.template("worker")) == before
    for type_ in ("ApiAvailable", "WorkersAvailable", "SchemaCurrent"):
        assert world.condition("MemoryRuntime", "main", type_)["status"] == "True"
    world.create("MemoryTeam", "team", {"runtimeRef": {"name": "main"}})
    await world.ready("MemoryTeam", "team")

    # Going back needs no migration: that one is done.
    world.patch("MemoryRuntime", "main", {"spec": {"image": {"tag": None}}})
    await world.settled()
    assert (world.template("api"), world.template("worker")) == before
