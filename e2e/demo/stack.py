"""The processes of the demo: a cluster, Postgres, Redis, api, worker and operator, each ended on the way out."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres, EmbeddedRedis, die_with_parent, free_port
from commonplace_runtime.services import tenants
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.store.pool import open_pool
from e2e.cluster.control_plane import ControlPlane
from e2e.report import CheckFailed

REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIME_LOGIN, OPERATOR_LOGIN = "demo_runtime", "demo_operator"
KUBECTL_SECONDS = 150  # above every --timeout that a caller gives kubectl


@dataclass(kw_only=True)
class Cluster:
    """A Kubernetes API and what the demo may do to it."""

    program: str
    environ: Mapping[str, str]
    namespace: str
    kubeconfig: str
    made_crds: list[str] = field(default_factory=list)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Output of kubectl in the demo's namespace. Raises CheckFailed with its error."""
        done = subprocess.run(
            [self.program, "--namespace", self.namespace, *words],
            env=dict(self.environ),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=KUBECTL_SECONDS,
            check=False,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        if done.returncode != 0:
            raise CheckFailed(f"kubectl {' '.join(words[:3])}: {done.stderr.strip()[:400]}")
        return done.stdout


def own_cluster(stack: ExitStack, say: Callable[[str], None]) -> Cluster:
    """A control plane of our own on loopback, gone with this process."""
    plane = stack.enter_context(ControlPlane.start(report=say))
    return Cluster(
        program=str(plane.kubectl),
        environ=plane.environment(),
        namespace="commonplace-demo",
        kubeconfig=str(plane.kubeconfig),
    )


def current_cluster(say: Callable[[str], None]) -> Cluster:
    """The cluster that KUBECONFIG (or ~/.kube/config) names. Raises CheckFailed where it holds objects of our kinds."""
    program = shutil.which("kubectl")
    if program is None:
        raise CheckFailed("CLUSTER=current needs kubectl on the PATH")
    default = Path.home() / ".kube" / "config"
    kubeconfig = os.environ.get("KUBECONFIG") or (str(default) if default.exists() else "")
    if not kubeconfig:
        raise CheckFailed("CLUSTER=current needs KUBECONFIG to name a kubeconfig file")
    cluster = Cluster(
        program=program,
        environ=dict(os.environ),
        namespace=f"commonplace-demo-{secrets.token_hex(3)}",
        kubeconfig=kubeconfig,
    )
    say(f"using context {cluster.kubectl('config', 'current-context').strip()} of {kubeconfig}")
    for crd in known_crds(cluster):
        found = cluster.kubectl("get", crd, "--all-namespaces", "-o", "name")
        if found.strip():
            raise CheckFailed(
                f"this cluster holds objects of {crd} ({len(found.split())}): the demo does not run beside them. "
                "Leave CLUSTER out to use a cluster of its own"
            )
    return cluster


def known_crds(cluster: Cluster) -> Sequence[str]:
    """Our CRDs that the cluster has."""
    names = cluster.kubectl("get", "customresourcedefinitions", "-o", "name").split()
    return [name.partition("/")[2] for name in names if name.endswith(".commonplace.dev")]


@dataclass(kw_only=True)
class Stack:
    """Everything that the demo runs beside the cluster."""

    cluster: Cluster
    directory: Path
    postgres: EmbeddedPostgres
    redis_url: str
    api_url: str
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def operator_database_url(self) -> str:
        """What goes into the Secret that the MemoryRuntime names."""
        return self.postgres.url(user=OPERATOR_LOGIN)

    def start_api(self) -> None:
        """The api as a process of its own, until it says that it is ready."""
        self._run("api", [sys.executable, "-m", "commonplace_runtime", "api"], self._runtime_environ())
        self._await_http("api", self.api_url + contract.READINESS_PATH)

    def start_worker(self) -> None:
        """The worker as a process of its own."""
        self._run("worker", [sys.executable, "-m", "commonplace_runtime", "worker"], self._runtime_environ())

    def start_operator(self) -> None:
        """The operator as a process of its own, confined to the demo's namespace."""
        port = free_port()
        environ = {
            **self.cluster.environ,
            "KUBECONFIG": self.cluster.kubeconfig,
            "COMMONPLACE_OPERATOR_NAMESPACE": self.cluster.namespace,
            "COMMONPLACE_OPERATOR_WATCH_NAMESPACES": self.cluster.namespace,
            "COMMONPLACE_OPERATOR_PORT": str(port),
            # It runs alone; one that is started after a kill need not wait for the Lease of the one before.
            "COMMONPLACE_OPERATOR_LEADER_ELECTION": "false",
        }
        self._run("operator", [sys.executable, "-m", "commonplace_operator"], environ)
        self._await_http("operator", f"http://127.0.0.1:{port}/readyz")

    def _runtime_environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("COMMONPLACE_")}
        return clean | {
            contract.ENV_DATABASE_URL: self.postgres.url(user=RUNTIME_LOGIN),
            contract.ENV_REDIS_URL: self.redis_url,
            contract.ENV_PORT: self.api_url.rpartition(":")[2],
            contract.ENV_METRICS_PORT: "0",
            contract.ENV_PUBLIC_URL: self.api_url,
        }

    def _run(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        with self.log(name).open("ab") as output:
            self.children[name] = subprocess.Popen(
                command,
                env=dict(environ),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one async-signal-safe call
            )

    def log(self, name: str) -> Path:
        """Where a child's output goes."""
        return self.directory / f"{name}.log"

    def _await_http(self, name: str, url: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.children[name].poll() is not None:
                raise CheckFailed(f"{name} ended with exit code {self.children[name].returncode} while starting")
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except OSError:
                time.sleep(0.05)
        raise CheckFailed(f"{name} did not answer at {url} within {seconds:.0f} s")

    def last_lines(self) -> str:
        """The end of each child's log, for a failure."""
        parts = []
        for name in self.children:
            lines = self.log(name).read_text(errors="replace").splitlines()[-8:]
            parts.append("\n".join([f"--- {name}: last lines of its log", *lines]))
        return "\n".join(parts)

    def stop(self) -> None:
        """End the children, operator first, and wait for each."""
        for name in reversed(self.children):
            if self.children[name].poll() is None:
                self.children[name].terminate()
        deadline = time.monotonic() + 20
        for child in self.children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def start_stores(stack: ExitStack, cluster: Cluster, stack_type: type[Stack] = Stack) -> Stack:
    """Postgres with the schema and a log-in for each role, and Redis: `COMMONPLACE_REDIS_URL` or one of our own."""
    directory = Path(tempfile.mkdtemp(prefix="commonplace-demo-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
    redis_url = os.environ.get(contract.ENV_REDIS_URL) or stack.enter_context(EmbeddedRedis()).url
    asyncio.run(_prepare_database(postgres.url()))
    made = stack_type(
        cluster=cluster,
        directory=directory,
        postgres=postgres,
        redis_url=redis_url,
        api_url=f"http://127.0.0.1:{free_port()}",
    )
    stack.callback(made.stop)
    return made


async def _prepare_database(url: str) -> None:
    pool = await open_pool(url, size=1, connect_timeout=10, statement_timeout=60, application="commonplace-demo")
    async with pool:
        await migrate(pool, with_roles=True)
        await tenants.ensure_login(pool, RUNTIME_LOGIN, contract.ROLE_RUNTIME)
        await tenants.ensure_login(pool, OPERATOR_LOGIN, contract.ROLE_OPERATOR)
