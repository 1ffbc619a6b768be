"""Where built things live between runs, and the lock that keeps two runs from building them twice."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Report = Callable[[str], None]
"""Takes one line of progress, without a line break."""


class ClusterError(RuntimeError):
    """What went wrong while building or running a cluster, and what the reader can do about it."""


def cache_root(environment: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_CACHE_HOME/commonplace/cluster`, by default under `~/.cache`; a relative value is ignored, as XDG says."""
    configured = environment.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "commonplace" / "cluster"


def sources_checksum(sources: Sequence[Path], *, flags: Sequence[str]) -> str:
    """16 hexadecimal digits over the names and contents of `sources` and over `flags`; their order does not matter."""
    digest = hashlib.sha256()
    for source in sorted(sources, key=lambda path: path.name):
        content = hashlib.sha256(source.read_bytes()).hexdigest()
        digest.update(f"{source.name} {content}\n".encode())
    for flag in sorted(flags):
        digest.update(f"{flag}\n".encode())
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def file_lock(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """
    Hold an exclusive lock on `path` (made if missing, never removed); `waiting` is called once if somebody holds it.

    The kernel frees the lock when the process dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
