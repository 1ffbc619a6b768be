"""A cluster with Commonplace installed by Helm, and the words to tell stories about it."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from commonplace_runtime import contract
from e2e.report import CheckFailed, Report

REPOSITORY: Final = Path(__file__).resolve().parents[1]
SAMPLES: Final = REPOSITORY / "docs" / "samples"
CHART: Final = REPOSITORY / "charts" / "commonplace"
SYSTEM: Final = "commonplace-system"
RELEASE: Final = "commonplace"
TENANT: Final = "memory"
NODE_PORT: Final = 30080
SAMPLE_URL: Final = "http://127.0.0.1:8787"
_PATIENCE_SECONDS: Final = 240.0
_LOOK_SECONDS: Final = 0.25
Found = TypeVar("Found")


class PodCluster(Protocol):
    """A cluster that runs pods, as the stories need it."""

    @property
    def kubeconfig(self) -> Path: ...

    @property
    def kubectl(self) -> Path: ...

    @property
    def address(self) -> str:
        """Where NodePorts answer."""
        ...

    def environment(self) -> Mapping[str, str]: ...

    def load(self, archive: Path) -> None: ...


@dataclass(kw_only=True)
class Site:
    """The cluster of one run. `helm`: the program. Everything a story makes is in namespace `TENANT`."""

    cluster: PodCluster
    helm: Path
    report: Report
    http: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=40))

    @property
    def api_url(self) -> str:
        """The API as somebody outside the cluster reaches it."""
        return f"http://{self.cluster.address}:{NODE_PORT}"

    def kubectl(self, *words: str, stdin: str | None = None, namespace: str = TENANT, seconds: float = 120) -> str:
        """Output of kubectl; namespace "": as the manifests say. Raises CheckFailed with its error."""
        within = ["--namespace", namespace] if namespace else []
        command = [str(self.cluster.kubectl), *within, *words]
        return self._run(command, stdin=stdin, seconds=seconds)

    def helm_do(self, *words: str, seconds: float = 240) -> str:
        """Output of helm. Raises CheckFailed with its error."""
        return self._run([str(self.helm), *words], stdin=None, seconds=seconds)

    def _run(self, command: Sequence[str], *, stdin: str | None, seconds: float) -> str:
        shown = " ".join([Path(command[0]).name, *command[1:6]])
        try:
            done = subprocess.run(
                command,
                env=dict(self.cluster.environment()),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{shown} took more than {seconds:.0f} s") from None
        if done.returncode != 0:
            raise CheckFailed(f"{shown}: {(done.stderr or done.stdout).strip()[-600:]}")
        return done.stdout

    def get(self, kind: str, name: str, *, namespace: str = TENANT) -> dict[str, Any] | None:
        """One object, None when it does not exist."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "-o", "json", namespace=namespace)
        return dict(json.loads(text)) if text.strip() else None

    def objects(self, kind: str, selector: str = "", *, namespace: str = TENANT) -> list[dict[str, Any]]:
        """Objects of a kind that the label selector chooses."""
        words = ["get", kind, "-o", "json", *(["-l", selector] if selector else [])]
        return list(json.loads(self.kubectl(*words, namespace=namespace))["items"])

    def apply(self, *manifests: Mapping[str, Any], namespace: str = TENANT) -> None:
        """kubectl apply."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document), namespace=namespace)

    def patch(self, what: str, body: Mapping[str, Any]) -> None:
        """A merge patch."""
        self.kubectl("patch", what, "--type=merge", "-p", json.dumps(body))

    def wait(self, what: str, condition: str, *, seconds: float = _PATIENCE_SECONDS, namespace: str = TENANT) -> None:
        """Until a condition of the object holds; what it says instead is in the failure."""
        try:
            self.kubectl(
                "wait",
                what,
                f"--for={condition}",
                f"--timeout={seconds:.0f}s",
                namespace=namespace,
                seconds=seconds + 30,
            )
        except CheckFailed as error:
            raise CheckFailed(f"{error}\n{self.describe(what, namespace)}") from None

    def describe(self, what: str, namespace: str = TENANT) -> str:
        """Conditions of an object and the state of the pods, for a failure."""
        try:
            body = json.loads(self.kubectl("get", what, "-o", "json", namespace=namespace))
            bodies = body.get("items", [body])
            lines = [
                f"{item['metadata']['name']}: {c['type']}={c['status']} {c.get('reason', '')}: {c.get('message', '')}"
                for item in bodies
                for c in (item.get("status") or {}).get("conditions") or ()
            ]
            return "\n".join([*lines, self.kubectl("get", "pods", "-o", "wide", namespace=namespace)])
        except CheckFailed as error:
            return str(error)

    def until(
        self,
        look: Callable[[], Found],
        otherwise: str | Callable[[], str],
        *,
        seconds: float = _PATIENCE_SECONDS,
        every: float = _LOOK_SECONDS,
    ) -> Found:
        """The first truthy value of `look`. Raises CheckFailed after `seconds`, saying what was seen instead."""
        deadline = time.monotonic() + seconds
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                raise CheckFailed(f"{otherwise if isinstance(otherwise, str) else otherwise()} for {seconds:.0f} s")
            time.sleep(every)

    def install(self) -> None:
        """Helm: the operator with its CRDs; returns when both replicas are ready."""
        version = contract.VERSION
        settings = {
            "image.repository": "localhost/commonplace/operator",
            "image.tag": version,
            "runtimeImage.repository": "localhost/commonplace/runtime",
        }
        words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        self.helm_do(
            "upgrade", "--install", RELEASE, str(CHART), "--namespace", SYSTEM, "--create-namespace",
            "--wait", "--timeout", "180s", *words,
        )  # fmt: skip

    def apply_samples(self) -> None:
        """The samples with a managed runtime, reached through a NodePort."""
        for file in ("managed/runtime.yaml", "team.yaml", "apikey.yaml"):
            text = (SAMPLES / file).read_text().replace(SAMPLE_URL, self.api_url)
            self.report.say(self.kubectl("apply", "-f", "-", stdin=text))

    def open_node_port(self) -> None:
        """A way in from outside the cluster, beside the Service of the API."""
        selector = {"commonplace.dev/runtime": "main", "app.kubernetes.io/component": "api"}
        port = {"name": "http", "port": contract.API_PORT, "targetPort": "http", "nodePort": NODE_PORT}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "outside"},
                "spec": {"type": "NodePort", "selector": selector, "ports": [port]},
            }
        )

    def secret(self, name: str = "checkout-agent") -> dict[str, str]:
        """Decoded data of a Secret."""
        body = self.get("secret", name)
        if body is None:
            raise CheckFailed(f"there is no Secret {name}")
        return {key: base64.b64decode(value).decode() for key, value in (body.get("data") or {}).items()}

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> httpx2.Response:
        """One request with the key of the sample, or with `token`. Raises httpx2.HTTPError when nobody answers."""
        headers = {"Authorization": f"Bearer {token or self.secret()['token']}"}
        return self.http.request(method, self.api_url + path, json=body, headers=headers)

    def reach_api(self) -> None:
        """Until the API answers from outside: its NodePort follows a moment after its pods are ready."""

        def answers() -> bool:
            try:
                return self.http.get(self.api_url + contract.HEALTH_PATH).status_code == 200
            except httpx2.HTTPError:
                return False

        self.until(answers, f"nobody answered at {self.api_url}", seconds=60)

    def search(self, query: str, *, limit: int = 20, token: str | None = None) -> list[dict[str, Any]]:
        """Memories over MCP with the official client, at the URL from the Secret."""
        secret = self.secret()
        return asyncio.run(_search(secret["mcp-url"], token or secret["token"], query, limit))

    @contextmanager
    def scaled(self, **autoscaling: Any) -> Iterator[None]:
        """Settings of the workers' autoscaling for the length of a story."""
        runtime = self.get("memoryruntime", "main") or {}
        before = runtime["spec"]["workers"].get("autoscaling")
        self.patch("memoryruntime/main", {"spec": {"workers": {"autoscaling": autoscaling}}})
        try:
            yield
        finally:
            gone = dict.fromkeys(autoscaling, None)
            self.patch("memoryruntime/main", {"spec": {"workers": {"autoscaling": gone | (before or {})}}})


async def _search(url: str, token: str, query: str, limit: int) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        result = await client.call_tool("search", {"query": query, "limit": limit})
    text = result.content[0].text if result.content and result.content[0].type == "text" else ""
    if result.is_error:
        raise CheckFailed(f"the tool answered: {text[:200]}")
    return list(json.loads(text)["observations"])
