"""Whether this machine can hold a node: what was found, and what to do about what is missing."""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.cache import ClusterError
from e2e.cluster.node_host import CGROUPS, cgroup_roots, is_unified

_PACKAGES: Final[Mapping[str, str]] = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
}
"""Programs that a node calls, and Debian's package of each."""
_V1_CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
_V2_CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids")
_OTHERWISE: Final = "CLUSTER=kind runs on Docker instead, and make demo CLUSTER=current on a cluster of yours"
_SBIN: Final = ("/usr/sbin", "/sbin")
_LONGEST_SOCKET_PATH: Final = 107


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What matters of a machine. `unified`: cgroup v2. `controllers`: of its cgroups."""

    system: str
    user: int
    missing_programs: Sequence[str]
    unified: bool
    controllers: Sequence[str]
    cgroups_writable: bool
    overlay: bool


def problems(found: Findings) -> Sequence[str]:
    """One line for each thing that keeps a node from starting, with what to do about it."""
    if found.system != "Linux":
        return [f"a node needs Linux, and this is {found.system}"]
    said = []
    if found.user != 0:
        said.append("a node needs root, for namespaces, cgroups and mounts: run it with sudo")
    if found.missing_programs:
        packages = " ".join(dict.fromkeys(_PACKAGES[program] for program in found.missing_programs))
        names = ", ".join(found.missing_programs)
        said.append(f"{names} not found: apt-get install --no-install-recommends {packages}")
    wanted = _V2_CONTROLLERS if found.unified else _V1_CONTROLLERS
    lacking = [name for name in wanted if name not in found.controllers]
    if lacking:
        version = "v2" if found.unified else "v1"
        said.append(
            f"the cgroup controllers {', '.join(lacking)} are not there at {CGROUPS} ({version}): "
            "boot with systemd, or mount them"
        )
    elif found.user == 0 and not found.cgroups_writable:
        said.append(f"{CGROUPS} is read-only, as in a container without privileges: run it on the machine itself")
    if not found.overlay:
        said.append("the kernel has no overlay file system: modprobe overlay")
    return said


def inspect() -> Findings:
    system = platform.system()
    if system != "Linux":
        return Findings(
            system=system,
            user=os.getuid(),
            missing_programs=(),
            unified=False,
            controllers=(),
            cgroups_writable=False,
            overlay=False,
        )
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    return Findings(
        system=system,
        user=os.getuid(),
        missing_programs=[program for program in _PACKAGES if shutil.which(program, path=path) is None],
        unified=is_unified(),
        controllers=_controllers(),
        cgroups_writable=all(os.access(root, os.W_OK) for root in cgroup_roots()) if CGROUPS.exists() else False,
        overlay=_has_overlay(),
    )


def require_node_support() -> None:
    """Raises ClusterError when this machine cannot hold a node; it says what to do."""
    said = problems(inspect())
    if said:
        raise ClusterError("\n  - ".join(["this machine cannot run a node:", *said, _OTHERWISE]))


def require_short_path(socket: Path) -> None:
    """Raises ClusterError for a socket whose path is longer than the kernel takes."""
    if len(os.fsencode(socket)) > _LONGEST_SOCKET_PATH:
        raise ClusterError(f"{socket} is too long for a socket: set XDG_CACHE_HOME to a shorter path")


def _controllers() -> Sequence[str]:
    if not CGROUPS.exists():
        return ()
    if is_unified():
        return (CGROUPS / "cgroup.controllers").read_text().split()
    return [name for root in cgroup_roots() for name in root.name.split(",")]


def _has_overlay() -> bool:
    # A module that is not loaded yet is loaded by the first mount.
    known = Path("/proc/filesystems").read_text().split()
    return "overlay" in known or any(Path("/lib/modules", os.uname().release).glob("kernel/fs/overlayfs/overlay.ko*"))
