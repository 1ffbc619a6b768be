"""A machine that cannot hold a node is told why, and what to do about it."""

from dataclasses import replace
from pathlib import Path

import pytest

from e2e.cluster import preflight
from e2e.cluster.cache import ClusterError
from e2e.cluster.node_host import cgroup_hierarchies, cgroup_roots, is_unified
from e2e.cluster.preflight import Findings, problems, require_node_support, require_short_path

FINE = Findings(
    system="Linux",
    user=0,
    missing_programs=(),
    unified=False,
    controllers=("cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd"),
    cgroups_writable=True,
    overlay=True,
)
V2 = replace(FINE, unified=True, controllers=("cpuset", "cpu", "io", "memory", "pids"))


@pytest.mark.parametrize("found", [FINE, V2], ids=["v1", "v2"])
def test_nothing_is_wrong_with_a_fit_machine(found: Findings) -> None:
    assert problems(found) == []


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        (replace(FINE, system="Darwin"), "a node needs Linux, and this is Darwin"),
        (replace(FINE, user=1000), "run it with sudo"),
        (
            replace(FINE, missing_programs=("runc", "iptables", "conntrack")),
            "runc, iptables, conntrack not found: apt-get install --no-install-recommends runc iptables conntrack",
        ),
        (replace(FINE, controllers=("cpu",)), "cpuacct, cpuset, devices, freezer, memory, pids are not there"),
        (replace(V2, controllers=("cpu", "cpuset", "pids")), "memory are not there at /sys/fs/cgroup (v2)"),
        (replace(FINE, cgroups_writable=False), "is read-only"),
        (replace(FINE, overlay=False), "modprobe overlay"),
    ],
)
def test_each_fault_says_what_to_do(found: Findings, advice: str) -> None:
    (said,) = problems(found)
    assert advice in said


def test_all_faults_are_told_at_once_with_the_other_ways_to_get_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "inspect", lambda: replace(FINE, user=1000, missing_programs=("runc",)))
    with pytest.raises(ClusterError) as refused:
        require_node_support()
    assert "sudo" in str(refused.value)
    assert "apt-get install" in str(refused.value)
    assert "CLUSTER=kind" in str(refused.value)


def test_a_socket_path_that_the_kernel_would_refuse_is_refused_with_advice() -> None:
    require_short_path(Path("/" + "a" * 106))
    with pytest.raises(ClusterError, match="XDG_CACHE_HOME"):
        require_short_path(Path("/" + "a" * 107))


def make_hierarchy(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir()
        (root / name / "cgroup.procs").touch()


def test_hybrid_cgroups_count_as_v1_without_the_tree_that_has_no_controllers(tmp_path: Path) -> None:
    make_hierarchy(tmp_path, "cpu,cpuacct", "memory", "systemd", "unified")
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert not is_unified(tmp_path)
    assert cgroup_hierarchies(tmp_path) == ("cpu,cpuacct", "memory", "systemd")


def test_unified_cgroups_have_one_root(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    make_hierarchy(tmp_path, "system.slice")
    assert cgroup_roots(tmp_path) == (tmp_path,)
    assert cgroup_hierarchies(tmp_path) is None
