"""
Compile etcd, the control plane and kubectl once, into a directory of the user's cache that names what is in it.

Everything that decides the result is in the directory's name (Kubernetes' version; a checksum of the Go sources, which
pin every module and Go's own version line, of the flags and the platform), so a change builds anew beside the old one.
"""

import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from e2e.cluster.cache import ClusterError, Report, cache_root, file_lock, file_sha256, sources_checksum
from e2e.cluster.compiler import run_go
from e2e.cluster.toolchain import find_go, go_environment

PROGRAMS: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubeadm",
    "kubectl",
)
_SOURCES: Final = Path(__file__).parent / "go" / "kubernetes"
_BINARY: Final = "kubernetes"
_CHECKSUM: Final = "sha256"
_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
_GIGABYTE: Final = 10**9
_LEAST_FREE_BYTES: Final = 1 * _GIGABYTE
_COLD_BUILD_BYTES: Final = 5 * _GIGABYTE
_WORTH_KEEPING_SECONDS: Final = 30


def kubernetes_version(sources: Path = _SOURCES) -> str:
    """The version that go.mod pins, such as `1.36.3`."""
    match = re.search(r"^require k8s\.io/kubernetes v(\S+)$", (sources / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise ClusterError(f"{sources / 'go.mod'} does not pin k8s.io/kubernetes")
    return match[1]


def build_flags(version: str) -> list[str]:
    """Arguments of `go build` that decide the bytes of the result; without VCS stamps it is the same on each build."""
    major, minor, _ = version.split(".", 2)
    stamps = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "local",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    linked = " ".join(f"-X {_VERSION_PACKAGE}.{name}={text}" for name, text in stamps.items())
    return ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {linked}"]


def build_home(root: Path, sources: Path = _SOURCES) -> Path:
    """`<root>/<Kubernetes version>-<checksum>`: where the result of these sources on this platform lives."""
    version = kubernetes_version(sources)
    files = [sources / name for name in ("go.mod", "go.sum", "main.go")]
    return root / f"{version}-{sources_checksum(files, flags=[*build_flags(version), platform.machine()])}"


def ensure_built(report: Report) -> Path:
    """
    The directory with a link for each of `PROGRAMS`, built first if need be (minutes the first time, else 0.2 s).

    The binary's checksum is verified on each call and a damaged one is built again; of several runs at once one
    builds and the others wait. Raises ClusterError, which says what to do.
    """
    root = cache_root()
    home = build_home(root)
    if _is_intact(home):
        return home / "bin"

    def waiting() -> None:
        report("another run is building the control plane: waiting for it")

    with file_lock(root / f"{home.name}.lock", waiting=waiting):
        if not _is_intact(home):
            if home.exists():
                report(f"{home} is damaged: building it again")
            _build(home, report)
    return home / "bin"


def _is_intact(home: Path) -> bool:
    try:
        expected = (home / _CHECKSUM).read_text().strip()
        links = all((home / "bin" / name).samefile(home / "bin" / _BINARY) for name in PROGRAMS)
        return links and file_sha256(home / "bin" / _BINARY) == expected
    except OSError:
        return False


def _build(home: Path, report: Report) -> None:
    for abandoned in home.parent.glob(f".{home.name}.*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    _require_space(home.parent, report)
    started = time.monotonic()
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
        try:
            (staging / "bin").mkdir()
            _compile(staging / "bin" / _BINARY, home.parent, report)
            for name in PROGRAMS:
                (staging / "bin" / name).symlink_to(_BINARY)
            (staging / _CHECKSUM).write_text(file_sha256(staging / "bin" / _BINARY) + "\n")
            shutil.rmtree(home, ignore_errors=True)
            staging.chmod(0o755)
            staging.rename(home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as refused:
        raise ClusterError(
            f"cannot write below {home.parent}: {refused}. Free some space or set XDG_CACHE_HOME"
        ) from refused
    report(f"Kubernetes {kubernetes_version()} built in {time.monotonic() - started:.0f} s: {home}")


def _compile(binary: Path, root: Path, report: Report) -> None:
    go = find_go(root, report)
    durations = _Durations(root / "durations.json")
    listing = binary.with_name("packages")
    _run_step("download", [str(go), "list", "-deps", "."], durations, report, stdout=listing)
    packages = len(listing.read_text().splitlines())
    listing.unlink()
    flags = build_flags(kubernetes_version())
    _run_step("compile", [str(go), "build", "-v", *flags, "-o", str(binary), "."], durations, report, of=packages)


def _run_step(
    step: str,
    argv: Sequence[str],
    durations: "_Durations",
    report: Report,
    *,
    of: int | None = None,
    stdout: Path | None = None,
) -> None:
    before = durations.longest(step)
    usually = f"took {before:.0f} s before" if before else "5 to 10 minutes the first time"

    def progress(done: int, seconds: float) -> None:
        what = f"up to {of} packages compiled" if of else "modules downloaded"
        report(f"Kubernetes {kubernetes_version()}: {done} {'of ' if of else ''}{what}, {seconds:.0f} s ({usually})")

    seconds = run_go(argv, cwd=_SOURCES, environment=go_environment(), progress=progress, stdout=stdout)
    durations.keep(step, seconds)


class _Durations:
    """The longest that each step has taken here: Go's own cache may make the last run a matter of seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _all(self) -> dict[str, float]:
        try:
            return {str(step): float(seconds) for step, seconds in json.loads(self._path.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def longest(self, step: str) -> float | None:
        return self._all().get(step)

    def keep(self, step: str, seconds: float) -> None:
        if seconds < _WORTH_KEEPING_SECONDS:
            return
        longest = max(seconds, self.longest(step) or 0)
        staged = self._path.with_suffix(f".{os.getpid()}")
        staged.write_text(json.dumps(self._all() | {step: round(longest, 1)}))
        staged.replace(self._path)


def _require_space(root: Path, report: Report) -> None:
    free = shutil.disk_usage(root).free
    if free >= _COLD_BUILD_BYTES:
        return
    need = f"a first build of Kubernetes takes about {_COLD_BUILD_BYTES / _GIGABYTE:.0f} GB"
    have = f"{free / _GIGABYTE:.1f} GB are free at {root}; {need}"
    if free < _LEAST_FREE_BYTES:
        raise ClusterError(f"{have}. Free some space, or set XDG_CACHE_HOME to a bigger disk")
    report(have)
