"""The demo holds, its table can fail, and nothing that it started stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.cluster.control_plane import ControlPlane

REPOSITORY = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
DEMO_SECONDS = 150

pytestmark = pytest.mark.timeout(600)


def start(folder: Path, *words: str, **environ: str) -> subprocess.Popen[str]:
    """The demo, with its temporary files in `folder`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("KEEP", "CLUSTER")}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env=clean | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(demo: subprocess.Popen[str]) -> str:
    output, _ = demo.communicate(timeout=DEMO_SECONDS)
    return output


def descendants(pid: int) -> set[int]:
    """Every process that descends from `pid`, at this moment."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = {pid}
    while fresh := {child for child, parent in parents.items() if parent in found} - found:
        found |= fresh
    return found - {pid}


def outcome(output: str, row: str) -> str:
    line = next(line for line in output.splitlines() if line.startswith(row))
    return line.removeprefix(row).strip()


def test_the_whole_chain_holds(tmp_path: Path) -> None:
    demo = start(tmp_path, "-m", "e2e.demo")
    output = finish(demo)
    assert demo.returncode == 0, output
    assert "all held" in output
    assert "memoryteam.commonplace.dev/shop" in output
    assert list(tmp_path.iterdir()) == [], "no temporary file stays"


def test_without_a_worker_the_row_about_jobs_fails(tmp_path: Path) -> None:
    demo = start(tmp_path, str(HERE / "without_worker.py"))
    output = finish(demo)
    assert demo.returncode == 1, output
    assert outcome(output, "its jobs are completed").startswith("FAILED"), output
    assert outcome(output, "the planted fact is recalled over MCP").startswith("not reached")


def test_with_the_key_revoked_early_the_row_about_the_session_fails(tmp_path: Path) -> None:
    demo = start(tmp_path, str(HERE / "revoked_early.py"))
    output = finish(demo)
    assert demo.returncode == 1, output
    assert outcome(output, "the session is accepted").startswith("FAILED       HTTP 403"), output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_an_interrupted_demo_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(tmp_path, "-m", "e2e.demo")
    seen: set[int] = set()
    assert demo.stdout is not None
    for line in demo.stdout:
        seen |= descendants(demo.pid)
        if "wait for Ready" in line:
            break
    assert len(seen) >= 6, "cluster, stores, api, worker and operator run by now"
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode == (130 if number is signal.SIGINT else -number)
    deadline = time.monotonic() + 20
    while alive := {pid for pid in seen if is_running(pid)}:
        assert time.monotonic() < deadline, f"still there: {[command(pid) for pid in alive]}"
        os.sched_yield()


def test_in_somebody_elses_cluster_it_asks_first_and_takes_everything_back(tmp_path: Path) -> None:
    team = (REPOSITORY / "docs" / "samples" / "team.yaml").read_text()
    crd = REPOSITORY / "crds" / "memoryteams.yaml"
    with ControlPlane.start() as cluster:
        there = {"CLUSTER": "current", **cluster.environment()}
        cluster.run_kubectl("create", "-f", str(crd))
        cluster.run_kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(crd))
        cluster.run_kubectl("create", "-f", "-", stdin=team)
        refused = start(tmp_path, "-m", "e2e.demo", **there)
        output = finish(refused)
        assert refused.returncode == 1
        assert "this cluster holds objects of memoryteams.commonplace.dev" in output
        cluster.run_kubectl("delete", "memoryteam", "shop")

        before = cluster.run_kubectl("get", "namespaces,crds", "-o", "name")
        demo = start(tmp_path, "-m", "e2e.demo", **there)
        output = finish(demo)
        assert demo.returncode == 0, output
        assert cluster.run_kubectl("get", "namespaces,crds", "-o", "name") == before


def test_without_its_operator_it_still_takes_everything_back(tmp_path: Path) -> None:
    with ControlPlane.start() as cluster:
        before = cluster.run_kubectl("get", "namespaces,crds", "-o", "name")
        demo = start(tmp_path, str(HERE / "operator_killed.py"), CLUSTER="current", **cluster.environment())
        output = finish(demo)
        assert demo.returncode == 1, output
        assert "stayed in the cluster" not in output
        assert cluster.run_kubectl("get", "namespaces,crds", "-o", "name") == before


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text().replace("\0", " ")[:100]
    except OSError:
        return "?"
