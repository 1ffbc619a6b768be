"""The lowest layer: a small Debian with Python, made by debootstrap, trimmed and with our user in it."""

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.cache import ClusterError, Report, cache_root, file_lock
from e2e.cluster.images import Directory, Entry, File, Link, Tree, write_layer
from e2e.images import steps
from e2e.images.recipe import PACKAGES, PYTHON, SUITE, TRIMMED, USER_ID, base_checksum

_ADVICE: Final = "check that the network reaches Debian's packages (debootstrap takes http_proxy)"
_OTHERWISE: Final = "docs/howto/images.md has the way with Docker, which needs neither"


@dataclass(frozen=True, slots=True)
class Base:
    """`root`: to work in with its Python. `tar`: the layer."""

    root: Path
    tar: Path

    def compile(self, folder: Path, report: Report, *, strip: str = "/") -> None:
        """
        Compile the Python below `folder`, which is inside the root, with the root's own Python.

        By the sources' checksum and without a check at run time: a layer has no times, and a container cannot write.
        strip: what the files' own names shall not begin with, because they will be elsewhere.
        """
        inside = f"/{folder.relative_to(self.root)}"
        command = ["chroot", str(self.root), f"/usr/bin/python{PYTHON}", "-c", _COMPILE, inside, strip]
        steps.run(command, report, what="compile Python", usually="seconds", advice="see its words")


_COMPILE: Final = """
import sys
from compileall import compile_dir
from py_compile import PycInvalidationMode
# What is no Python of this version stays uncompiled.
mode = PycInvalidationMode.UNCHECKED_HASH
compile_dir(sys.argv[1], quiet=2, force=True, stripdir=sys.argv[2], prependdir="/", invalidation_mode=mode)
"""


def ensure_base(report: Report) -> Base:
    """The root and its layer out of the cache, made first if need be. Raises ClusterError."""
    home = cache_root() / "images" / f"base-{SUITE}-{base_checksum()}"
    base = Base(home / "root", home / "layer.tar")
    if base.tar.exists():
        return base
    _require_tools()

    def waiting() -> None:
        report("another run is making the Debian root: waiting for it")

    with file_lock(home.with_suffix(".lock"), waiting=waiting):
        if not base.tar.exists():
            _make(home, report)
    return base


def _require_tools() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            f"images without Docker need root, for debootstrap and chroot: run it with sudo. {_OTHERWISE}"
        )
    missing = [program for program in ("debootstrap", "chroot", "unshare") if shutil.which(program) is None]
    if missing:
        raise ClusterError(
            f"{', '.join(missing)} not found: apt-get install --no-install-recommends debootstrap coreutils util-linux."
            f" {_OTHERWISE}"
        )


def _make(home: Path, report: Report) -> None:
    for abandoned in home.parent.glob(f".{home.name}.*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
    try:
        base = Base(staging / "root", staging / "layer.tar")
        # In mounts of its own: what debootstrap mounts and leaves goes with it.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        what = f"Debian {SUITE} with Python"
        usually = "one to three minutes the first time"
        steps.run([*command, SUITE, str(base.root)], report, what=what, usually=usually, advice=_ADVICE)
        _trim(base.root)
        _add_user(base.root)
        for folder in ("usr/lib/python3", f"usr/lib/python{PYTHON}"):
            base.compile(base.root / folder, report)
        (base.root / "build").mkdir()
        write_layer(base.tar, *_entries(base.root))
        shutil.rmtree(home, ignore_errors=True)
        staging.chmod(0o755)
        staging.rename(home)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _trim(root: Path) -> None:
    for pattern in TRIMMED:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            path.chmod(stat.S_IMODE(mode) & 0o777)  # nobody in a pod becomes anybody else


def _add_user(root: Path) -> None:
    with (root / "etc" / "passwd").open("a") as users:
        users.write(f"commonplace:x:{USER_ID}:{USER_ID}::/nonexistent:/usr/sbin/nologin\n")
    with (root / "etc" / "group").open("a") as groups:
        groups.write(f"commonplace:x:{USER_ID}:\n")


def _entries(root: Path) -> Sequence[Entry]:
    """The root as it is, but for the directory that we build in."""
    entries: list[Entry] = [Directory("tmp", 0o1777), Directory("var/tmp", 0o1777)]
    for path in sorted(root.iterdir()):
        if path.name == "build":
            continue
        if path.is_symlink():
            entries.append(Link(str(path.readlink()), path.name))
        elif path.is_dir():
            entries.append(Tree(path, path.name))
        else:
            entries.append(File(path, path.name))
    return entries
