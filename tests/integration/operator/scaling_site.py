"""A managed runtime with its worker Deployment and one scaling loop over it: words for tests."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from commonplace_operator.children.accounts import service_account
from commonplace_operator.children.installation import Installation
from commonplace_operator.children.secret import MacKey
from commonplace_operator.children.worker import worker_deployment
from commonplace_operator.cluster import KubernetesCluster, load_configuration
from commonplace_operator.engine.events import EventRecorder
from commonplace_operator.engine.metrics import Metrics
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.scalingstatus import ScalingState, scaling_conditions
from commonplace_operator.reconcile.children import put
from commonplace_operator.reconcile.context import Context, Key, Timings
from commonplace_operator.reconcile.databases import KnownDatabases
from commonplace_operator.reconcile.scaling import scale
from commonplace_operator.reconcile.scaling_board import ScalingBoard
from commonplace_operator.registry import PostgresRegistries
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from e2e.cluster.control_plane import ControlPlane
from tests.integration.operator.harness import World
from tests.unit.operator.factories import token

DEPLOYMENT = "rt-worker"


@dataclass(kw_only=True)
class Site:
    """A managed runtime `rt` whose worker Deployment is there, and one loop over it."""

    world: World
    context: Context
    told: list[Key]
    key: Key

    def path(self, group: str, plural: str, name: str = "") -> str:
        return f"/apis/{group}/namespaces/{self.world.namespace}/{plural}/{name}".rstrip("/")

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        status, answer = self.world.api.request(method, path, body, **options)
        assert status in {200, 201, 202}, answer
        return answer

    def spec(self, **autoscaling: Any) -> None:
        self.world.patch("MemoryRuntime", "rt", {"spec": {"workers": {"autoscaling": autoscaling}}})

    def runtime(self) -> MemoryRuntime:
        body = self.world.get("MemoryRuntime", "rt")
        assert body is not None
        return MemoryRuntime.parse(body)

    @property
    def deployment(self) -> dict[str, Any]:
        return dict(self.request("GET", self.path("apps/v1", "deployments", DEPLOYMENT)))

    @property
    def replicas(self) -> int:
        return int(self.deployment["spec"]["replicas"])

    def owners(self) -> list[tuple[str, str, str | None]]:
        """Who owns spec.replicas: manager, operation, subresource."""
        return [
            (entry["manager"], entry["operation"], entry.get("subresource"))
            for entry in self.deployment["metadata"]["managedFields"]
            if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        ]

    async def apply_deployment(self) -> None:
        this = Installation(runtime=self.runtime(), image="x")
        for manifest in (service_account(this), worker_deployment(this)):
            await put(self.context, this.runtime, manifest)

    async def queue(self, sessions: int) -> None:
        """Exactly so many sessions wait, a job each. How long a job takes nobody knows: a worker for 100 of them."""
        team = await self.world.sql.fetchval(
            "INSERT INTO commonplace.teams (id, slug, name) VALUES (gen_random_uuid(), 'ns.shop', 'T')"
            " ON CONFLICT (slug) DO UPDATE SET name = 'T' RETURNING id"
        )
        project = await self.world.sql.fetchval(
            "INSERT INTO commonplace.projects (id, team_id, name) VALUES (gen_random_uuid(), $1, 'p')"
            " ON CONFLICT (team_id, name) DO UPDATE SET display_name = NULL RETURNING id",
            team,
        )
        await self.world.sql.execute("DELETE FROM commonplace.job_groups")
        await self.world.sql.execute(
            "INSERT INTO commonplace.job_groups (team_id, project_id, session_key, available_at, waiting)"
            " SELECT $1, $2, 'c:' || n, now(), 1 FROM generate_series(1, $3::integer) n",
            team,
            project,
            sessions,
        )

    async def run_job_on(self, worker: str) -> None:
        """One job of a session of its own, under a lease of that worker."""
        await self.queue(1)
        await self.world.sql.execute(
            "UPDATE commonplace.job_groups SET lease_until = now() + interval '1 h',"
            " available_at = now() + interval '1 h', leased_by = $1",
            worker,
        )
        await self.world.sql.execute(
            "INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, source_type, source_id, job_type,"
            " actor, status, locked_by) SELECT gen_random_uuid(), team_id, project_id, session_key, 'session_summary',"
            " gen_random_uuid(), 's', 'a', 'processing', $1 FROM commonplace.job_groups",
            worker,
        )

    async def look(self) -> Result:
        return await scale(self.context, self.key)

    @property
    def state(self) -> ScalingState | None:
        return self.context.scaling.state((self.key.namespace, self.key.name))

    def conditions(self) -> dict[str, tuple[str, str]]:
        assert self.state is not None
        return {c.type: (c.status, c.reason) for c in scaling_conditions(self.state)}

    def message(self, type_: str) -> str:
        assert self.state is not None
        return next(c.message for c in scaling_conditions(self.state) if c.type == type_)

    def pods(self) -> list[dict[str, Any]]:
        found = self.request("GET", f"/api/v1/namespaces/{self.world.namespace}/pods")["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def hpa(self, kind: str = "Deployment", target: str = DEPLOYMENT, api: str = "apps/v1") -> None:
        metric = {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}}
        spec = {
            "scaleTargetRef": {"apiVersion": api, "kind": kind, "name": target},
            "maxReplicas": 5,
            "metrics": [metric],
        }
        body = {"metadata": {"name": "theirs"}, "spec": spec}
        self.request("POST", self.path("autoscaling/v2", "horizontalpodautoscalers"), body)

    def drop_hpa(self) -> None:
        self.request("DELETE", self.path("autoscaling/v2", "horizontalpodautoscalers", "theirs"))

    def scale_by_hand(self, replicas: int) -> None:
        path = self.path("apps/v1", "deployments", DEPLOYMENT) + "/scale?fieldManager=kubectl"
        self.request("PATCH", path, {"spec": {"replicas": replicas}}, content_type="application/merge-patch+json")


def make_context(cluster: KubernetesCluster, registries: PostgresRegistries, told: list[Key]) -> Context:
    metrics = Metrics()

    async def post(_event: Any) -> None:
        return None

    recorder = EventRecorder(
        post, clock=lambda: datetime.now(UTC), metrics=metrics, instance="test", controller="commonplace.dev/operator"
    )
    return Context(
        cluster=cluster,
        registries=registries,
        recorder=recorder,
        metrics=metrics,
        clock=lambda: datetime.now(UTC),
        chance=lambda: 0.5,
        mint=lambda: token(1),
        mint_password=lambda: "unused",
        new_id=lambda: "unused",
        enqueue=told.append,
        enqueue_after=lambda _key, _seconds: None,
        enqueue_scaling=lambda _key: None,
        installation="cluster-1/default",
        term=lambda: 1,
        mac_key=MacKey(b"k" * 32),
        # So that every look is a decision.
        timings=Timings(resync_seconds=600, quota_refresh_seconds=300, scaling_seconds=0),
        databases=KnownDatabases(cluster, namespace="none", secret="none"),
        scaling=ScalingBoard(),
        runtime_image="commonplace/runtime",
    )


@pytest.fixture
async def site(control_plane: ControlPlane, world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr("commonplace_operator.reconcile.scaling.IDLE_MODES_SECONDS", 0.0)
    cluster = KubernetesCluster(await load_configuration({"KUBECONFIG": str(control_plane.kubeconfig)}), timeout=15)
    registries = PostgresRegistries(connect_timeout=2, statement_timeout=10)
    told: list[Key] = []
    uri = base64.b64encode(world.database.operator_url.encode()).decode()
    world.api.request("POST", world.path("Secret"), {"metadata": {"name": "rt-db"}, "data": {"uri": uri}})
    world.create(
        "MemoryRuntime",
        "rt",
        {
            "management": "Managed",
            "database": {"ownerSecretRef": {"name": "unused"}, "operatorSecretRef": {"name": "rt-db"}},
            "workers": {"autoscaling": {"scaleDownStabilizationSeconds": 0}},
        },
    )
    found = Site(
        world=world,
        context=make_context(cluster, registries, told),
        told=told,
        key=Key(kind=names.RUNTIME, namespace=world.namespace, name="rt"),
    )
    await found.apply_deployment()
    yield found
    await registries.close()
    await cluster.close()
