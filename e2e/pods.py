"""A cluster that runs pods, with the images of operator and runtime in it."""

import contextlib
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from e2e.images import ensure_images
from e2e.report import CheckFailed, Report
from e2e.site import PodCluster, Site

IMAGE_PACKAGES: Final = {"debootstrap": "debootstrap"}
NODE_PACKAGES: Final = {"runc": "runc", "iptables": "iptables", "conntrack": "conntrack", "ip": "iproute2"}
"""Programs that the images and a node of our own need, and Debian's package of each."""
_APT_SECONDS: Final = 600


def install_missing(report: Report, kind: str) -> None:
    """
    Install what is missing for a cluster of that kind where that can be done: as root, on Debian and its kin.

    Nothing is removed for it: Docker's own packages conflict with Debian's runc. Elsewhere nothing happens, and whoever
    needs a program says so. Raises CheckFailed when apt-get does.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    packages = IMAGE_PACKAGES | (NODE_PACKAGES if kind == "node" else {})
    missing = [package for program, package in packages.items() if shutil.which(program, path=path) is None]
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    report.say(f"apt-get install {' '.join(missing)}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-qq", "--yes", "--no-remove", "--no-install-recommends", *missing]):
        done = subprocess.run(
            ["apt-get", *words], env=environ, capture_output=True, text=True, timeout=_APT_SECONDS, check=False
        )
        if done.returncode != 0:
            raise CheckFailed(f"apt-get {words[0]}: {done.stderr.strip()[-400:]}")


def docker_answers() -> bool:
    """Whether a Docker engine is there for kind."""
    program = shutil.which("docker")
    if program is None:
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([program, "info"], capture_output=True, timeout=20, check=False).returncode == 0
    return False


def open_site(stack: ExitStack, report: Report, kind: str) -> Site:
    """A cluster of that kind with our images in it, gone with `stack`. Raises CheckFailed, ClusterError."""
    with report.step("build the images of operator and runtime"):
        install_missing(report, kind)
        archives = ensure_images(report.say)
    with report.step(f"start a cluster ({kind})"):
        cluster = start_cluster(stack, report, kind)
    with report.step("load the images"):
        for archive in archives:
            cluster.load(archive)
    return Site(cluster=cluster, helm=helm_program(), report=report)


def start_cluster(stack: ExitStack, report: Report, kind: str) -> PodCluster:
    """A cluster that runs pods, gone with `stack`."""
    if kind == "kind":
        from e2e.cluster.kind import Kind

        return stack.enter_context(Kind.start(report=report.say))
    from e2e.cluster.node import Node

    return stack.enter_context(Node.start(report=report.say))


def helm_program() -> Path:
    """Helm out of the virtual environment, else from the PATH. Raises CheckFailed without one."""
    beside = Path(sys.executable).with_name("helm")
    found = str(beside) if beside.exists() else shutil.which("helm")
    if found is None:
        raise CheckFailed("helm is missing: make setup installs it")
    return Path(found)
