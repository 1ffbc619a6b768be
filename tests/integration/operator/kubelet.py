"""A managed MemoryRuntime without a kubelet: the test says what pods do, Kubernetes' own controllers do the rest."""

import asyncio
import base64
import json
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import asyncpg

from commonplace_operator.cluster import object_path
from commonplace_operator.reconcile.children import KINDS
from commonplace_operator.resources import names
from commonplace_runtime.contract import MigrationReport
from commonplace_runtime.embedded import EmbeddedPostgres, free_port
from tests.integration.operator.harness import OperatorProcess, World, until

OWNER: Final = "app"
OWNER_PASSWORD: Final = "p@ss/word#1"
HBA: Final = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
MERGE: Final = "application/merge-patch+json"
_KINDS: Final = KINDS | {kind.kind: kind for kind in (*names.OURS, names.POD, names.NAMESPACE)}


def _public_file(name: str, text: str) -> Path:
    """Not below pytest's own folder: where the tests are root the server is another user, who may not enter that."""
    folder = Path(tempfile.mkdtemp(prefix="commonplace-hba-"))
    folder.chmod(0o755)
    (folder / name).write_text(text)
    (folder / name).chmod(0o644)
    return folder / name


@dataclass(frozen=True, kw_only=True)
class PasswordServer:
    """A Postgres that asks for passwords over TCP, as a pod would reach it; `app` may create roles."""

    server: EmbeddedPostgres
    port: int

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator["PasswordServer"]:
        hba = _public_file("pg_hba.conf", HBA)
        port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "hba_file": str(hba), "fsync": "off", "full_page_writes": "off"}
        # pg_isready, by which the start is awaited, reads it too.
        os.environ["PGPORT"] = str(port)
        try:
            server = EmbeddedPostgres(settings=settings).start()
        finally:
            del os.environ["PGPORT"]
        try:
            found = cls(server=server, port=port)
            async with found.superuser() as connection:
                await connection.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD '{OWNER_PASSWORD}'")
                await connection.execute("CREATE ROLE powerless LOGIN PASSWORD 'powerless'")
            yield found
        finally:
            server.stop()
            shutil.rmtree(hba.parent)

    def socket_url(self, database: str = "postgres") -> str:
        return f"{self.server.url(database=database)}&port={self.port}"

    def url(self, database: str, *, user: str = OWNER, password: str = OWNER_PASSWORD) -> str:
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    @asynccontextmanager
    async def superuser(self, database: str = "postgres") -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        connection = await asyncpg.connect(self.socket_url(database))
        try:
            yield connection
        finally:
            await connection.close()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(kw_only=True)
class ManagedWorld(World):
    """One namespace in which the test is the kubelet. `owner_uri`: of the external database."""

    owner_uri: str
    folder: Path
    begin: Callable[..., OperatorProcess] = field(init=False)
    operators: list[OperatorProcess] = field(default_factory=list)

    def path(self, kind: str, name: str = "", namespace: str | None = None) -> str:
        return object_path(_KINDS[kind], namespace or self.namespace, name or None)

    def find(self, kind: str, **labels: str) -> list[dict[str, Any]]:
        """Objects of the namespace, by labels of ours (`runtime`, `component`)."""
        spelt = {"runtime": names.LABEL_RUNTIME, "component": names.LABEL_COMPONENT, "job": "job-name"}
        chosen = ",".join(f"{spelt[label]}={value}" for label, value in labels.items())
        _, answer = self.api.request("GET", f"{self.path(kind)}?labelSelector={quote(chosen)}")
        return [dict(item) for item in answer["items"]]

    def names(self, kind: str, runtime: str = "main") -> list[str]:
        return sorted(item["metadata"]["name"] for item in self.find(kind, runtime=runtime))

    def put_secret(self, name: str, **data: str) -> None:
        body = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}
        if self.get("Secret", name) is None:
            self.api.request("POST", self.path("Secret"), {"metadata": {"name": name}} | body)
        else:
            self.patch("Secret", name, body)

    def managed(self, name: str = "main", **spec: Any) -> None:
        """A managed MemoryRuntime over the external database, with its Secret."""
        self.put_secret(f"{name}-owner", uri=self.owner_uri)
        self.create(
            "MemoryRuntime",
            name,
            {"database": {"ownerSecretRef": {"name": f"{name}-owner"}}, "api": {"replicas": 1}} | spec,
        )

    def running_job(self, *, runtime: str = "main", other_than: str = "") -> dict[str, Any] | None:
        """A migration Job that has not ended. other_than: fingerprint of a migration that is not meant."""
        for job in self.find("Job", runtime=runtime):
            is_other = job["metadata"]["labels"][names.LABEL_MIGRATION] != other_than
            if is_other and not job.get("status", {}).get("conditions"):
                return job
        return None

    async def job(self, runtime: str = "main") -> dict[str, Any]:
        """Wait for a migration Job that has not ended."""
        look = f"a running migration Job; now {self.condition('MemoryRuntime', runtime)}"
        return dict(await until(lambda: self.running_job(runtime=runtime), look))

    def environment_of(self, container: Mapping[str, Any]) -> dict[str, str]:
        """What the kubelet would give the container: values, and keys of Secrets."""
        found = {}
        for entry in container.get("env", []):
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                found[entry["name"]] = (self.secret(reference["name"]) or {})[reference["key"]]
            else:
                found[entry["name"]] = entry.get("value", "")
        return found

    async def run_migration(self, job: Mapping[str, Any] | None = None) -> MigrationReport:
        """Do what the Job's container would do, and tell its end as the kubelet would."""
        job = job or await self.job()
        [container] = job["spec"]["template"]["spec"]["containers"]
        file = self.folder / f"{job['metadata']['name']}.json"
        args = [str(file) if word == container["terminationMessagePath"] else word for word in container["args"]]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("COMMONPLACE_", "PG"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "commonplace_runtime", *args),
            env=clean | self.environment_of(container) | {"COMMONPLACE_STARTUP_TIMEOUT_SECONDS": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 90)
        assert file.exists(), output.decode()
        assert process.returncode is not None
        await self.end_job(job, code=process.returncode, message=file.read_text())
        report = MigrationReport.from_json(file.read_text())
        assert report is not None, output.decode()
        return report

    async def end_job(self, job: Mapping[str, Any], *, code: int, message: str) -> None:
        """The Job's pod has ended so; the Job controller draws its conclusion."""
        name = job["metadata"]["name"]

        def own() -> list[dict[str, Any]]:
            # By uid: the pods of a deleted Job of the same name may still be there.
            uid = job["metadata"]["uid"]
            found = self.find("Pod", job=name)
            return [pod for pod in found if any(r["uid"] == uid for r in pod["metadata"].get("ownerReferences", []))]

        pods = await until(own, f"a pod of Job {name}")
        ended = {"exitCode": code, "message": message, "startedAt": now(), "finishedAt": now()}
        self.pod_status(pods[0], phase="Failed" if code else "Succeeded", state={"terminated": ended}, is_ready=False)
        await until(
            lambda: (self.get("Job", name) or {"status": {"conditions": 1}})["status"].get("conditions"),
            f"{name} ended",
        )

    async def fail_job(self, report: MigrationReport) -> str:
        """The running migration ends with this report. Gives the Job's name."""
        job = await self.job()
        await self.end_job(job, code=1, message=report.to_json())
        return str(job["metadata"]["name"])

    def pod_status(
        self,
        pod: Mapping[str, Any],
        *,
        phase: str = "Running",
        state: Mapping[str, Any] | None = None,
        is_ready: bool = True,
    ) -> None:
        [container] = pod["spec"]["containers"]
        shown = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": is_ready,
            "restartCount": 0,
            "state": dict(state or {"running": {"startedAt": now()}}),
        }
        conditions = [
            {"type": kind, "status": str(is_ready), "lastTransitionTime": now()}
            for kind in ("Ready", "ContainersReady")
        ]
        path = f"{self.path('Pod', pod['metadata']['name'])}/status"
        status = {"phase": phase, "conditions": conditions, "containerStatuses": [shown]}
        code, answer = self.api.request("PATCH", path, {"status": status}, content_type=MERGE)
        assert code in {200, 404}, answer

    def serve(self, *components: str) -> None:
        """Have every pod of these components run and serve that does not yet."""
        for component in components:
            for pod in self.find("Pod", component=component):
                if pod["status"].get("phase") == "Pending" and not pod["metadata"].get("deletionTimestamp"):
                    self.pod_status(pod)

    async def settled(self, name: str = "main", *components: str) -> dict[str, Any]:
        """Play the kubelet until the runtime is Ready; the object."""

        def look() -> dict[str, Any] | None:
            self.serve(*(components or ("api", "worker")))
            body = self.get("MemoryRuntime", name) or {}
            conditions = {condition["type"]: condition for condition in body.get("status", {}).get("conditions", [])}
            ready = conditions.get("Ready", {})
            is_new = ready.get("observedGeneration") == body["metadata"]["generation"]
            return body if is_new and ready["status"] == "True" else None

        return dict(await until(look, f"{name} Ready; now {self.condition('MemoryRuntime', name)}", 60))

    async def installed(self, **spec: Any) -> dict[str, Any]:
        """A managed runtime whose migration ran and whose pods serve."""
        self.managed(**spec)
        report = await self.run_migration()
        assert report.outcome == "migrated", report
        return await self.settled()

    def template(self, component: str) -> dict[str, Any]:
        """The live pod template of a Deployment."""
        deployment = self.get("Deployment", f"main-{component}")
        assert deployment is not None
        return dict(deployment["spec"]["template"])

    def manager(self, kind: str, name: str) -> set[tuple[str, str]]:
        """Who applied or updated fields of the object itself, and how."""
        body = self.get(kind, name)
        assert body is not None, (kind, name)
        return {
            (entry["manager"], entry["operation"])
            for entry in body["metadata"]["managedFields"]
            if not entry.get("subresource")
        }


@dataclass(frozen=True, kw_only=True)
class Writes:
    """The figures of one operator process, read from its log and its metrics."""

    process: OperatorProcess

    @property
    def port(self) -> int:
        lines = [json.loads(line) for line in self.process.log.splitlines() if line.startswith("{")]
        return int([line["port"] for line in lines if line.get("event") == "operator_started"][-1])

    def figure(self, name: str, *labels: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = str(answer.read().decode()).splitlines()
        found = [line for line in lines if line.startswith(name) and all(label in line for label in labels)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def count(self) -> float:
        return self.figure("commonplace_operator_writes_total")

    def passes(self) -> float:
        return self.figure("controller_runtime_reconcile_total", 'controller="memoryruntime"')
