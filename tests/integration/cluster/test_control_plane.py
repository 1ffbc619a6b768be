"""A control plane works within seconds and leaves neither a process nor a file behind, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from e2e.cluster.build import build_home, ensure_built
from e2e.cluster.cache import ClusterError, cache_root
from e2e.cluster.components import START_ORDER
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.processes import Identity, wait_until
from tests.crds.wire import GROUP, VERSION, new_object

REPOSITORY: Final = Path(__file__).resolve().parents[3]
OWNER: Final = """
import sys, time
from pathlib import Path
from e2e.cluster.control_plane import ControlPlane
with ControlPlane.start(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


def processes_of(state: Path) -> list[int]:
    """Pids of the supervisor and the programs of the control plane in `state`: all name it on their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(state).encode() in arguments and b"e2e.cluster.control_plane" not in arguments:
                found.append(int(entry.name))
    return found


def nothing_is_left_of(state: Path) -> bool:
    return not state.exists() and not processes_of(state)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    assert processes_of(tmp_path / "state") == []


@pytest.fixture
def owner(state: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own that starts a control plane in `state` and then waits."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", OWNER, str(state)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def _await_ready(owner: "subprocess.Popen[str]") -> None:
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"


def test_two_started_at_once_both_work_and_end_without_a_trace(tmp_path: Path) -> None:
    states = [tmp_path / name for name in ("first", "second")]
    with ThreadPoolExecutor() as pool:
        clusters = list(pool.map(ControlPlane.start, states))
    try:
        servers = set()
        for cluster in clusters:
            assert set(cluster.processes) == {*START_ORDER, "supervisor"}
            assert len(processes_of(cluster.state_dir)) == 4
            with cluster.api() as api:
                assert api.request("GET", "/readyz")[0] == 200
                account = "/api/v1/namespaces/default/serviceaccounts/default"
                assert api.request("GET", account)[0] == 200
            assert "v1.36" in cluster.run_kubectl("version")
            servers.add(cluster.run_kubectl("config", "view", "--output=jsonpath={.clusters[0].cluster.server}"))
        assert len(servers) == 2
        assert all(server.startswith("https://127.0.0.1:") for server in servers)
    finally:
        for cluster in clusters:
            cluster.stop()
    assert all(nothing_is_left_of(state) for state in states)
    clusters[0].stop()


def test_it_listens_on_loopback_only_and_its_files_are_its_users_own(state: Path) -> None:
    with ControlPlane.start(state) as cluster:
        assert state.stat().st_mode & 0o077 == 0
        assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
        listening = _listening_addresses(cluster)
    assert listening
    assert listening == {"127.0.0.1"}


def _listening_addresses(cluster: ControlPlane) -> set[str]:
    """Local addresses of the listening TCP sockets of its processes; `[v6]` for any of IPv6."""
    inodes = set()
    for process in cluster.processes.values():
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                packed = bytes.fromhex(fields[1].partition(":")[0])
                found.add(".".join(str(part) for part in reversed(packed)) if table == "tcp" else "[v6]")
    return found


def test_nothing_is_left_after_the_owner_is_killed(owner: "subprocess.Popen[str]", state: Path) -> None:
    _await_ready(owner)
    assert len(processes_of(state)) == 4
    owner.kill()
    assert wait_until(lambda: nothing_is_left_of(state), seconds=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_after_an_end_in_the_middle_of_the_start(
    number: signal.Signals, owner: "subprocess.Popen[str]", state: Path
) -> None:
    assert wait_until(lambda: (state / "logs" / "kube-apiserver.log").exists(), seconds=30)
    owner.send_signal(number)
    assert wait_until(lambda: nothing_is_left_of(state), seconds=30)


def test_the_programs_go_with_a_killed_supervisor_and_stop_removes_the_files(state: Path) -> None:
    cluster = ControlPlane.start(state)
    cluster.processes["supervisor"].send(signal.SIGKILL)
    assert wait_until(lambda: not any(process.is_alive for process in cluster.processes.values()), seconds=10)
    cluster.stop()
    assert nothing_is_left_of(state)


def test_a_failed_start_says_why_and_leaves_nothing(state: Path, tmp_path: Path) -> None:
    crds = tmp_path / "crds"
    crds.mkdir()
    (crds / "broken.yaml").write_text("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n")
    with pytest.raises(ClusterError, match="the control plane did not start: kubectl") as failed:
        ControlPlane.start(state, crds=crds)
    assert "name" in str(failed.value)
    assert nothing_is_left_of(state)


def test_a_directory_with_content_is_not_taken_because_it_would_be_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ClusterError, match="is not empty"):
        ControlPlane.start(tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def _command_line(*arguments: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "e2e.cluster", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_up_stays_until_down(tmp_path: Path) -> None:
    ensure_built(lambda line: None)
    # A cache of its own, for it holds the one place where `up` runs; with the build that there already is.
    built = build_home(cache_root())
    cache = tmp_path / "commonplace" / "cluster"
    cache.mkdir(parents=True)
    (cache / built.name).symlink_to(built)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    try:
        up = _command_line("up", environment=environment)
        assert up.stdout.startswith(f"export KUBECONFIG={cache}/up/"), up.stderr
        again = _command_line("up", environment=environment)
        assert again.stdout == up.stdout
        assert "it runs already" in again.stderr
        status = _command_line("status", environment=environment)
        assert all(f"{program} " in status.stdout for program in START_ORDER)
        assert "ended" not in status.stdout
        assert len(processes_of(cache / "up")) == 4
    finally:
        down = _command_line("down", environment=environment)
    assert down.returncode == 0, down.stderr
    assert nothing_is_left_of(cache / "up")
    assert _command_line("status", environment=environment).returncode == 1


def test_run_gives_a_command_a_cluster_and_passes_its_status_on() -> None:
    script = "kubectl get namespace default -o name && echo state=$(dirname $KUBECONFIG) && exit 7"
    ran = _command_line("run", "--", "sh", "-c", script, environment=os.environ)
    assert ran.returncode == 7, ran.stderr
    assert "namespace/default" in ran.stdout
    assert nothing_is_left_of(Path(ran.stdout.rpartition("state=")[2].strip()))


def test_what_belongs_to_our_objects_is_collected_from_the_start(control_plane: ControlPlane, namespace: str) -> None:
    with control_plane.api() as api:
        keys = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/apikeys"
        status, key = api.request("POST", keys, new_object("apikeys", {}, name="ci"))
        assert status == 201, key
        owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ApiKey", "name": "ci", "uid": key["metadata"]["uid"]}
        secrets = f"/api/v1/namespaces/{namespace}/secrets"
        api.request("POST", secrets, {"metadata": {"name": "ci", "ownerReferences": [owner]}})
        api.request("DELETE", f"{keys}/ci")
        # Kinds that are installed later would have to wait for the next look around, up to 30 s away.
        assert wait_until(lambda: api.request("GET", f"{secrets}/ci")[0] == 404, seconds=20)


def test_every_worker_of_a_run_gets_the_same_control_plane(control_plane: ControlPlane) -> None:
    again = ControlPlane.attach(control_plane.state_dir)
    assert again.processes == control_plane.processes
    assert Identity.of(control_plane.processes["supervisor"].pid) == control_plane.processes["supervisor"]
