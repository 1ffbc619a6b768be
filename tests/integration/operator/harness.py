"""Words to tell stories about the operator with: a process, a world of objects and rows, and patience."""

import asyncio
import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from commonplace_runtime import contract
from e2e.cluster.api import ApiClient
from e2e.cluster.control_plane import ControlPlane
from tests.conftest import Database

PLURALS = {
    "MemoryRuntime": "memoryruntimes",
    "MemoryTeam": "memoryteams",
    "ApiKey": "apikeys",
    "Quota": "memoryquotas",
}
PATIENCE = 30.0


async def until(look: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """The first truthy value of `look`. Fails after `patience` seconds, saying what was awaited."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        await asyncio.sleep(0.05)


class OperatorProcess:
    """One operator process; its log is kept for the test to read."""

    def __init__(self, environment: dict[str, str], log: Path, arguments: tuple[str, ...]) -> None:
        self.log_path = log
        self._environment = environment
        self._arguments = arguments
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log_path.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *self._arguments],
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def restart(self) -> None:
        """SIGTERM, and the same process anew."""
        assert self.stop() == 0
        self.process = self._start()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self, patience: float = 10.0) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


def operator_environment(control_plane: ControlPlane, namespace: str, **settings: str) -> dict[str, str]:
    """The environment of an operator process; its own namespace and everything else by arguments."""
    # No election: these operators share one namespace, and one that is started after a kill need not wait for a Lease.
    alone = {"LEADER_ELECTION": "false"}
    defaults = alone | {"NAMESPACE": namespace, "PORT": "0", "WORKERS": "4", "LOG_LEVEL": "debug"}
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("COMMONPLACE_")},
        "KUBECONFIG": str(control_plane.kubeconfig),
        "PYTHONWARNINGS": "default",
        **{f"COMMONPLACE_OPERATOR_{name}": value for name, value in (defaults | settings).items()},
    }


@dataclass(kw_only=True)
class World:
    """One namespace with a MemoryRuntime of its own over a database of its own."""

    api: ApiClient
    namespace: str
    database: Database
    sql: "asyncpg.Pool[asyncpg.Record]"
    seen_tokens: set[str] = field(default_factory=set)

    def path(self, kind: str, name: str = "", namespace: str | None = None) -> str:
        if kind in PLURALS:
            root = f"/apis/commonplace.dev/v1alpha1/namespaces/{namespace or self.namespace}/{PLURALS[kind]}"
        else:
            root = f"/api/v1/namespaces/{namespace or self.namespace}/{kind.lower()}s"
        return f"{root}/{name}" if name else root

    def create(
        self, kind: str, name: str, spec: dict[str, Any], *, namespace: str | None = None, **metadata: Any
    ) -> dict[str, Any]:
        body = {
            "apiVersion": "commonplace.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        status, answer = self.api.request("POST", self.path(kind, namespace=namespace), body)
        assert status == 201, answer
        return dict(answer)

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        status, answer = self.api.request("GET", self.path(kind, name, namespace))
        return dict(answer) if status == 200 else None

    def patch(self, kind: str, name: str, body: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
        status, answer = self.api.request(
            "PATCH", self.path(kind, name, namespace), body, content_type="application/merge-patch+json"
        )
        assert status == 200, answer
        return dict(answer)

    def annotate(self, kind: str, name: str, **annotations: str) -> None:
        self.patch(
            kind, name, {"metadata": {"annotations": {f"commonplace.dev/{k}": v for k, v in annotations.items()}}}
        )

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        status, answer = self.api.request("DELETE", self.path(kind, name, namespace))
        assert status in {200, 202}, answer

    def secret(self, name: str) -> dict[str, str] | None:
        """The decoded data of a Secret; every token seen is remembered for the hygiene test."""
        body = self.get("Secret", name)
        if body is None:
            return None
        data = {k: base64.b64decode(v).decode() for k, v in (body.get("data") or {}).items()}
        if "token" in data:
            self.seen_tokens.add(data["token"])
        return data

    def condition(self, kind: str, name: str, type_: str = "Ready", namespace: str | None = None) -> dict[str, Any]:
        """The condition, or {}."""
        body = self.get(kind, name, namespace) or {}
        conditions = body.get("status", {}).get("conditions", [])
        return next((dict(c) for c in conditions if c["type"] == type_), {})

    async def ready(self, kind: str, name: str) -> dict[str, Any]:
        """Wait for Ready=True of the newest generation; the object."""

        def look() -> dict[str, Any] | None:
            body = self.get(kind, name) or {}
            for condition in body.get("status", {}).get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "True":
                    return body if condition["observedGeneration"] == body["metadata"]["generation"] else None
            return None

        return dict(await until(look, f"{kind} {name} Ready; now {self.condition(kind, name)}"))

    async def reason(self, kind: str, name: str, reason: str, type_: str = "Ready") -> dict[str, Any]:
        """Wait for the reason; the condition."""

        def look() -> dict[str, Any] | None:
            condition = self.condition(kind, name, type_)
            return condition if condition.get("reason") == reason else None

        return dict(await until(look, f"{kind} {name} {type_}/{reason}; now {self.condition(kind, name, type_)}"))

    async def gone(self, kind: str, name: str) -> None:
        await until(lambda: self.get(kind, name) is None, f"{kind} {name} gone")

    def runtime(self, name: str = "rt", **spec: Any) -> None:
        """An External MemoryRuntime over this world's database, with its Secret."""
        uri = base64.b64encode(self.database.operator_url.encode()).decode()
        self.api.request("POST", self.path("Secret"), {"metadata": {"name": f"{name}-db"}, "data": {"uri": uri}})
        self.create(
            "MemoryRuntime",
            name,
            {
                "management": "External",
                "publicUrl": "https://memory.example.com",
                "database": {"operatorSecretRef": {"name": f"{name}-db"}},
            }
            | spec,
        )

    def point_runtime_at(self, uri: str) -> None:
        """Change the URI in the runtime's Secret."""
        self.patch("Secret", "rt-db", {"data": {"uri": base64.b64encode(uri.encode()).decode()}})

    async def revision(self, number: int) -> None:
        """Wait until the ApiKey `key` reports that revision."""
        await until(
            lambda: (self.get("ApiKey", "key") or {}).get("status", {}).get("revision") == number, f"revision {number}"
        )

    def team(self, name: str = "team", **spec: Any) -> None:
        self.create("MemoryTeam", name, {"runtimeRef": {"name": "rt"}, "projects": [{"name": "web"}]} | spec)

    def key(self, name: str = "key", *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        self.create(
            "ApiKey",
            name,
            {"teamRef": {"name": "team"}, "scopes": ["memories:read", "memories:write"]} | spec,
            annotations=annotations or {},
        )

    def event_reasons(self, name: str) -> list[str]:
        """Reasons of all Events about objects of that name."""
        _, answer = self.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        return [e["reason"] for e in answer["items"] if e.get("regarding", {}).get("name") == name]

    async def rows(self, name: str = "key") -> list[dict[str, Any]]:
        """All key rows of an ApiKey, by revision."""
        body = self.get("ApiKey", name)
        uid = body["metadata"]["uid"] if body else ""
        return [
            dict(row)
            for row in await self.sql.fetch(
                "SELECT * FROM commonplace.api_keys WHERE owner_uid = $1 ORDER BY revision", uid
            )
        ]

    async def works(self, token: str) -> bool:
        """Whether the token authenticates by the rows' state."""
        row = await self.sql.fetchrow(
            """SELECT k.state, k.grace_until > now() AS graced, k.expires_at <= now() AS expired, t.detached_at
               FROM commonplace.api_keys k JOIN commonplace.teams t ON t.id = k.team_id WHERE token_hash = $1""",
            contract.hash_token(token),
        )
        if row is None or row["expired"] or row["detached_at"] is not None:
            return False
        return row["state"] in {"unpublished", "published"} or (row["state"] == "grace" and bool(row["graced"]))
