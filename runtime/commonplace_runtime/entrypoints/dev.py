"""
`commonplace dev`: the whole runtime on a laptop.

Postgres and Redis are embedded, api and worker are child processes as in production. All of it ends with this
process. The data directory keeps the database and the developer's key, so a pasted MCP URL works again tomorrow.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from commonplace_runtime import contract
from commonplace_runtime.embedded import (
    EmbeddedPostgres,
    EmbeddedRedis,
    EmbeddedServerFailed,
    die_with_parent,
    free_port,
)
from commonplace_runtime.services import tenants
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.settings import settings_or_exit
from commonplace_runtime.store.pool import open_pool

RUNTIME_LOGIN = "commonplace_dev"
TEAM = "dev"
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
EXIT_FAILED = 1


@dataclass(frozen=True, kw_only=True)
class DevStack:
    """What runs, and how to reach it; also the fields of the `--json` line."""

    base_url: str
    database_url: str
    admin_database_url: str
    redis_url: str
    key: str
    mcp_url: str


class _Stopped(Exception):
    """SIGINT or SIGTERM arrived."""


def run_dev(environ: Mapping[str, str], *, data_dir: Path | None, port: int, with_worker: bool, as_json: bool) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code: 0 when stopped, 1 when something failed."""
    directory = data_dir or _default_data_dir(environ)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stopped)
    try:
        with running(environ, directory, port=port, with_worker=with_worker) as (stack, is_running):
            _announce(stack, directory, as_json=as_json)
            failed = _wait_for_first_end(is_running)
            print(f"commonplace dev: {failed} ended by itself, so everything was ended", file=sys.stderr)
            return EXIT_FAILED
    except _Stopped:
        return 0
    except (EmbeddedServerFailed, OSError) as error:
        print(f"commonplace dev: {error}", file=sys.stderr)
        return EXIT_FAILED


def _raise_stopped(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not interrupt the cleaning up
        signal.signal(number, signal.SIG_IGN)
    raise _Stopped


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "commonplace"


@contextmanager
def running(
    environ: Mapping[str, str], directory: Path, *, port: int, with_worker: bool
) -> Iterator[tuple[DevStack, Mapping[str, Callable[[], bool]]]]:
    """The whole stack, ready to answer, and for each part whether it runs; everything is ended on the way out."""
    with ExitStack() as stack:
        api_port = _port(port)
        postgres = stack.enter_context(EmbeddedPostgres(directory))
        is_running: dict[str, Callable[[], bool]] = {"Postgres": lambda: postgres.is_running}
        redis_url = environ.get(contract.ENV_REDIS_URL)
        if not redis_url:
            redis = stack.enter_context(EmbeddedRedis(directory / "redis"))
            redis_url = redis.url
            is_running["Redis"] = lambda: redis.is_running
        admin_url, database_url = postgres.url(), postgres.url(user=RUNTIME_LOGIN)
        key = _developer_key(admin_url, directory / "dev-key")
        base_url = f"http://127.0.0.1:{api_port}"
        child_environ = dict(environ) | {
            contract.ENV_DATABASE_URL: database_url,
            contract.ENV_REDIS_URL: redis_url,
            contract.ENV_HOST: "127.0.0.1",
            contract.ENV_PORT: str(api_port),
            contract.ENV_METRICS_PORT: "0",
            contract.ENV_PUBLIC_URL: environ.get(contract.ENV_PUBLIC_URL) or base_url,
        }
        child_environ.setdefault("COMMONPLACE_LOG_FORMAT", "console" if sys.stderr.isatty() else "json")
        settings_or_exit(child_environ)
        children: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(_end, children)
        children["api"] = _child("api", child_environ)
        if with_worker:
            children["worker"] = _child("worker", child_environ)
        _await_ready(base_url + contract.READINESS_PATH, children)
        is_running |= {name: partial(_has_not_ended, child) for name, child in children.items()}
        yield (
            DevStack(
                base_url=base_url,
                database_url=database_url,
                admin_database_url=admin_url,
                redis_url=redis_url,
                key=key,
                mcp_url=contract.mcp_url(base_url),
            ),
            is_running,
        )


def _port(wanted: int) -> int:
    if wanted == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise OSError(f"port {wanted} is in use: say --port N, or --port 0 for a free one") from error
    return wanted


async def _prepare_database(admin_url: str, known_key: str | None) -> str:
    pool = await open_pool(admin_url, size=1, connect_timeout=10, statement_timeout=60, application="commonplace-dev")
    async with pool:
        await migrate(pool, with_roles=True)
        await tenants.ensure_login(pool, RUNTIME_LOGIN, contract.ROLE_RUNTIME)
        return await tenants.reissue_key(pool, known_key, team=TEAM, name="dev", actor="human:developer")


def _developer_key(admin_url: str, file: Path) -> str:
    known = file.read_text().strip() if file.exists() else None
    key = asyncio.run(_prepare_database(admin_url, known))
    if key != known:
        _write_private(file, key)
    return key


def _write_private(file: Path, text: str) -> None:
    fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(text + "\n")
    fresh.replace(file)


def _child(verb: str, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "commonplace_runtime", verb],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one async-signal-safe call
    )


def _await_ready(url: str, children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        for name, child in children.items():
            if child.poll() is not None:
                raise EmbeddedServerFailed(f"{name} ended with exit code {child.returncode} while starting")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own loopback address
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise EmbeddedServerFailed(f"{url} did not answer within {START_TIMEOUT_SECONDS:.0f} s")


def _has_not_ended(child: subprocess.Popen[bytes]) -> bool:
    return child.poll() is None


def _wait_for_first_end(is_running: Mapping[str, Callable[[], bool]]) -> str:
    while True:
        for name, runs in is_running.items():
            if not runs():
                return name
        time.sleep(0.2)


def _end(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    for child in children.values():
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _announce(stack: DevStack, directory: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_fields(stack)), flush=True)
        return
    lines: Sequence[str] = (
        "",
        f"Commonplace {contract.VERSION} is ready. Memories are kept in {directory}.",
        "",
        f"  API  {stack.base_url}",
        f"  MCP  {stack.mcp_url}",
        f"  key  {stack.key}",
        "",
        "  " + contract.connect_command(stack.mcp_url, stack.key),
        "",
        "Ctrl-C ends it.",
    )
    print("\n".join(lines), flush=True)


def _fields(stack: DevStack) -> dict[str, Any]:
    return {
        "base_url": stack.base_url,
        "database_url": stack.database_url,
        "admin_database_url": stack.admin_database_url,
        "redis_url": stack.redis_url,
        "key": stack.key,
        "mcp_url": stack.mcp_url,
    }
