"""
What a node changes on the machine outside of its own namespaces, and how each of it is taken back.

That is: one directory in each cgroup hierarchy, one pair of network devices, empty directories as mount points, and
those kernel settings that the kubelet writes and no namespace holds. All of it is written down before it is made, so
that the next node can clean up after a supervisor that was killed.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from e2e.cluster.cache import ClusterError
from e2e.cluster.node_components import CGROUP, HOST_ADDRESS, HOST_INTERFACE, MOUNT_POINTS, NODE_INTERFACE
from e2e.cluster.processes import wait_until

CGROUPS: Final = Path("/sys/fs/cgroup")
_RECORD: Final = Path("/run/commonplace-node.json")
_TUNABLES: Final = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)
_COMMAND_SECONDS: Final = 15.0


def cgroup_roots(root: Path = CGROUPS) -> Sequence[Path]:
    """The root directory of each hierarchy: several for cgroup v1, `root` alone for v2."""
    if is_unified(root):
        return (root,)
    found = sorted(path for path in root.iterdir() if (path / "cgroup.procs").exists() and not path.is_symlink())
    # A hybrid machine has a v2 tree beside the v1 ones, without controllers.
    return tuple(path for path in found if path.name != "unified")


def is_unified(root: Path = CGROUPS) -> bool:
    """Whether this is cgroup v2."""
    return (root / "cgroup.controllers").exists()


def cgroup_hierarchies(root: Path = CGROUPS) -> Sequence[str] | None:
    """Names of the v1 hierarchies; None for v2."""
    return None if is_unified(root) else tuple(path.name for path in cgroup_roots(root))


@dataclass
class Host:
    """This machine's side of the one node that may run on it."""

    _lock: IO[str] | None = None
    _record: dict[str, Any] = field(default_factory=dict)

    def claim(self, state: Path) -> None:
        """
        Hold the machine for the node in `state` until `release`, cleaned of what a killed one left.

        Raises ClusterError when another node runs.
        """
        self._lock = _RECORD.open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            where = _read_record().get("state", "another directory")
            raise ClusterError(
                f"a node runs already, in {where}, and a machine holds one at a time: "
                "end the run that owns it, or say `python -m e2e.cluster node down`"
            ) from None
        left = _read_record()
        if left:
            _clean(left)
        self._record = {
            "state": str(state),
            "tunables": {name: text for name in _TUNABLES if (text := _tunable(name).read_text().strip())},
            "made": [point for point in MOUNT_POINTS if not Path(point).exists()],
        }
        _write_record(self._record)

    def prepare(self) -> Sequence[Path]:
        """Make mount points and cgroups; returns the files that a process writes its pid to, to enter the cgroups."""
        for point in self._record["made"]:
            Path(point).mkdir(parents=True, exist_ok=True)
        own = [root / CGROUP for root in cgroup_roots()]
        for path in own:
            path.mkdir(exist_ok=True)
            if not is_unified() and (path / "cpuset.cpus").exists():
                # v1: nothing can enter a cpuset that holds no processor yet.
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (path / name).write_text((path.parent / name).read_text())
        if is_unified():
            _enable_controllers(CGROUPS)
        return [path / "cgroup.procs" for path in own]

    def connect(self, pid: int) -> None:
        """Give the network namespace of process `pid` its device, and the machine the other end."""
        peer = ("peer", "name", NODE_INTERFACE, "netns", str(pid))
        _run("ip", "link", "add", HOST_INTERFACE, "type", "veth", *peer)
        _run("ip", "addr", "add", f"{HOST_ADDRESS}/30", "dev", HOST_INTERFACE)
        _run("ip", "link", "set", HOST_INTERFACE, "up")

    def release(self) -> None:
        """Take everything back. Whatever ran in the namespaces has to be gone."""
        if self._lock is None:
            return
        if self._record:
            _clean(self._record)
            self._record = {}
        self._lock.close()
        self._lock = None


def clean_up() -> None:
    """Take back what a node left whose supervisor was killed; nothing happens while one runs."""
    with _RECORD.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        left = _read_record()
        if left:
            _clean(left)


def node_processes() -> Sequence[int]:
    """Pids of everything that runs in the node's cgroups."""
    found: set[int] = set()
    for root in cgroup_roots():
        for procs in (root / CGROUP).rglob("cgroup.procs"):
            with suppress(OSError):
                found.update(map(int, procs.read_text().split()))
    return sorted(found)


def _clean(record: Mapping[str, Any]) -> None:
    for pid in node_processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ClusterError):
        _run("ip", "link", "delete", HOST_INTERFACE)
    wait_until(_remove_cgroups, seconds=10)
    for name, text in record["tunables"].items():
        with suppress(OSError):
            if _tunable(name).read_text().strip() != text:
                _tunable(name).write_text(text)
    for point in record["made"]:
        with suppress(OSError):
            Path(point).rmdir()
    shutil.rmtree(record["state"], ignore_errors=True)
    _write_record({})


def _remove_cgroups() -> bool:
    """Remove what is empty; whether all is gone. A cgroup stays busy for a moment after its last process."""
    own = [root / CGROUP for root in cgroup_roots()]
    for top in own:
        for directory, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
    return not any(path.exists() for path in own)


def _enable_controllers(root: Path) -> None:
    for controller in (root / "cgroup.controllers").read_text().split():
        with suppress(OSError):
            (root / "cgroup.subtree_control").write_text(f"+{controller}")


def _tunable(name: str) -> Path:
    return Path("/proc/sys") / name


def _read_record() -> dict[str, Any]:
    try:
        found = json.loads(_RECORD.read_text() or "{}")
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_record(record: Mapping[str, Any]) -> None:
    """In place: the lock is on this very file."""
    _RECORD.write_text(json.dumps(record) if record else "")


def _run(*argv: str) -> None:
    ended = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
    )
    if ended.returncode != 0:
        raise ClusterError(f"{' '.join(argv)}: {ended.stderr.strip()}")
