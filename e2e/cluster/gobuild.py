"""
Compile Go programs once, each into a directory of the user's cache that names what is in it.

Everything that decides the result is in the directory's name (the version; a checksum of the Go sources, which pin
every module and Go's own version line, of the flags and the platform), so a change builds anew beside the old one.
"""

import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from e2e.cluster.cache import ClusterError, Report, cache_root, file_lock, file_sha256, sources_checksum
from e2e.cluster.compiler import run_go
from e2e.cluster.toolchain import find_go, go_environment

GO_SOURCES: Final = Path(__file__).parent / "go"
_SOURCE_NAMES: Final = ("go.mod", "go.sum", "main.go")
_CHECKSUM: Final = "sha256"
_GIGABYTE: Final = 10**9
_LEAST_FREE_BYTES: Final = 1 * _GIGABYTE
_WORTH_KEEPING_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class GoProgram:
    """
    What one run of `go build` makes.

    title: for the reader. sources: the directory with go.mod. module: the one in go.mod whose version this has, or
    `version`. packages: name of a binary to the package of its main function. links: further names of the only binary.
    stamps: variables that the linker sets, where `{version}`, `{major}` and `{minor}` are filled in. usually: what to
    tell who waits for the first time. cold_gigabytes: what a first build takes, modules and Go's cache included.
    """

    title: str
    sources: Path
    packages: Mapping[str, str]
    module: str = ""
    version: str = ""
    prefix: str = ""
    links: Sequence[str] = ()
    tags: Sequence[str] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)
    usually: str
    cold_gigabytes: float

    def pinned_version(self) -> str:
        """The version that go.mod pins, such as `1.36.3`. Raises ClusterError when it pins none."""
        if not self.module:
            return self.version
        text = (self.sources / "go.mod").read_text()
        match = re.search(rf"^(?:require)?\s*{re.escape(self.module)} v(\S+)", text, re.MULTILINE)
        if match is None:
            raise ClusterError(f"{self.sources / 'go.mod'} does not pin {self.module}")
        return match[1]

    def flags(self) -> list[str]:
        """Arguments of `go build` that decide the bytes; without VCS stamps they are the same on each build."""
        version = self.pinned_version()
        major, minor, *_ = [*version.split("."), "0"]
        filled = {name: text.format(version=version, major=major, minor=minor) for name, text in self.stamps.items()}
        linked = "".join(f" -X {name}={text}" for name, text in filled.items())
        tags = ["-tags", ",".join(self.tags)] if self.tags else []
        return ["-trimpath", "-buildvcs=false", *tags, "-ldflags", f"-s -w{linked}"]

    def home(self, root: Path) -> Path:
        """`<root>/<prefix><version>-<checksum>`: where the result of these sources on this platform lives."""
        files = [path for name in _SOURCE_NAMES if (path := self.sources / name).exists()]
        checksum = sources_checksum(files, flags=[*self.flags(), platform.machine()])
        return root / f"{self.prefix}{self.pinned_version()}-{checksum}"

    @property
    def label(self) -> str:
        return f"{self.title} {self.pinned_version()}"


def ensure_program(program: GoProgram, report: Report) -> Path:
    """
    The directory with the program's binaries and links, built first if need be.

    The binaries' checksums are verified on each call and a damaged one is built again; of several runs at once one
    builds and the others wait. Raises ClusterError, which says what to do.
    """
    root = cache_root()
    home = program.home(root)
    if _is_intact(program, home):
        return home / "bin"

    def waiting() -> None:
        report(f"another run is building {program.title}: waiting for it")

    with file_lock(root / f"{home.name}.lock", waiting=waiting):
        if not _is_intact(program, home):
            if home.exists():
                report(f"{home} is damaged: building it again")
            _build(program, home, report)
    return home / "bin"


def _checksums(program: GoProgram, binaries: Path) -> str:
    return "".join(f"{file_sha256(binaries / name)}\n" for name in sorted(program.packages))


def _is_intact(program: GoProgram, home: Path) -> bool:
    try:
        only = next(iter(program.packages))
        links = all((home / "bin" / name).samefile(home / "bin" / only) for name in program.links)
        return links and (home / _CHECKSUM).read_text() == _checksums(program, home / "bin")
    except OSError:
        return False


def _build(program: GoProgram, home: Path, report: Report) -> None:
    for abandoned in home.parent.glob(f".{home.name}.*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    _require_space(program, home.parent, report)
    started = time.monotonic()
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
        try:
            (staging / "bin").mkdir()
            _compile(program, staging, home.parent, report)
            for name in program.links:
                (staging / "bin" / name).symlink_to(next(iter(program.packages)))
            (staging / _CHECKSUM).write_text(_checksums(program, staging / "bin"))
            shutil.rmtree(home, ignore_errors=True)
            staging.chmod(0o755)
            staging.rename(home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as refused:
        raise ClusterError(
            f"cannot write below {home.parent}: {refused}. Free some space or set XDG_CACHE_HOME"
        ) from refused
    report(f"{program.label} built in {time.monotonic() - started:.0f} s: {home}")


def _compile(program: GoProgram, staging: Path, root: Path, report: Report) -> None:
    run = _Steps(program, go=find_go(root, report), durations=_Durations(root / "durations.json"), report=report)
    listing = staging / "packages"
    tags = ["-tags", ",".join(program.tags)] if program.tags else []
    run.step("download", ["list", "-deps", *tags, *program.packages.values()], stdout=listing)
    packages = len(listing.read_text().splitlines())
    listing.unlink()
    for name, package in program.packages.items():
        output = str(staging / "bin" / name)
        run.step("compile", ["build", "-v", *program.flags(), "-o", output, package], of=packages)


@dataclass(frozen=True, slots=True)
class _Steps:
    program: GoProgram
    go: Path
    durations: "_Durations"
    report: Report

    def step(self, step: str, arguments: Sequence[str], *, of: int | None = None, stdout: Path | None = None) -> None:
        key = f"{self.program.prefix}{step}"
        before = self.durations.longest(key)
        usually = f"took {before:.0f} s before" if before else f"{self.program.usually} the first time"

        def progress(done: int, seconds: float) -> None:
            what = f"up to {of} packages compiled" if of else "modules downloaded"
            self.report(f"{self.program.label}: {done} {'of ' if of else ''}{what}, {seconds:.0f} s ({usually})")

        seconds = run_go(
            [str(self.go), *arguments],
            what=self.program.title,
            cwd=self.program.sources,
            environment=go_environment(),
            progress=progress,
            stdout=stdout,
        )
        self.durations.keep(key, seconds)


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


def _require_space(program: GoProgram, root: Path, report: Report) -> None:
    free = shutil.disk_usage(root).free
    if free >= program.cold_gigabytes * _GIGABYTE:
        return
    need = f"a first build of {program.title} takes about {program.cold_gigabytes:g} GB"
    have = f"{free / _GIGABYTE:.1f} GB are free at {root}; {need}"
    if free < _LEAST_FREE_BYTES:
        raise ClusterError(f"{have}. Free some space, or set XDG_CACHE_HOME to a bigger disk")
    report(have)
