"""`commonplace embedded postgres | redis` as a container runs them: a process, its port, its volume."""

import asyncio
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asyncpg
import pytest
import redis.asyncio
import redis.exceptions

from commonplace_runtime import contract, embedded_pod
from commonplace_runtime.embedded import EmbeddedServerFailed, free_port

pytestmark = pytest.mark.timeout(120)


@dataclass
class Pod:
    """The process in front of a server."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def volume() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parents are closed to the server's own user
        Path(name).chmod(0o755)
        yield Path(name) / "data"


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMMONPLACE_", "CLAUDE_MEM_"))}
    return clean | more


def start(kind: Literal["postgres", "redis"], volume: Path, password: str) -> Pod:
    port = free_port()
    log = volume.parent / f"{kind}-{port}.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "commonplace_runtime", "embedded", kind, "--data-dir", volume, "--port", str(port)],
        env=environment(**{contract.ENV_EMBEDDED_PASSWORD: password}),
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )
    return Pod(process=process, port=port, log=log)


@asynccontextmanager
async def running(kind: Literal["postgres", "redis"], volume: Path, password: str = "pass") -> AsyncIterator[Pod]:
    pod = start(kind, volume, password)
    try:
        await until_open(pod)
        yield pod
    finally:
        if pod.process.poll() is None:
            pod.end()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.01)


def seen_by_everybody(pod: Pod) -> bytes:
    """The server's command line and environment."""
    (child,) = Path(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children").read_text().split()
    return Path(f"/proc/{child}/cmdline").read_bytes() + Path(f"/proc/{child}/environ").read_bytes()


async def until_open(pod: Pod) -> None:
    async with asyncio.timeout(60):
        while True:
            assert pod.process.poll() is None, pod.log.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", pod.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def until_closed(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.05)


async def connect(pod: Pod, password: str = "pass") -> "asyncpg.Connection[asyncpg.Record]":
    async with asyncio.timeout(60):
        while True:
            try:
                return await asyncpg.connect(
                    host="127.0.0.1", port=pod.port, user="postgres", password=password, database="commonplace"
                )
            except (asyncpg.CannotConnectNowError, ConnectionError):
                await asyncio.sleep(0.05)


async def put(pod: Pod, value: int) -> None:
    connection = await connect(pod)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def kept(pod: Pod, password: str = "pass") -> list[int]:
    connection = await connect(pod, password)
    try:
        return [row["value"] for row in await connection.fetch("SELECT value FROM kept ORDER BY value")]
    finally:
        await connection.close()


async def test_postgres_asks_for_the_password_and_ends_at_once_under_its_clients(volume: Path) -> None:
    async with running("postgres", volume, 'it\'s a \\ "pass"') as pod:
        connection = await connect(pod, 'it\'s a \\ "pass"')
        facts = {
            name: await connection.fetchval(f"SHOW {name}") for name in ("server_encoding", "data_checksums", "fsync")
        }
        assert facts == {"server_encoding": "UTF8", "data_checksums": "on", "fsync": "on"}
        with pytest.raises(asyncpg.InvalidPasswordError):
            await connect(pod, "another")
        assert pod.end() == 0
        connection.terminate()
    assert "fast shutdown" in pod.log.read_text()
    assert "it's a" not in pod.log.read_text()


async def test_a_password_that_was_minted_again_is_the_one_that_counts(volume: Path) -> None:
    async with running("postgres", volume, "pass") as pod:
        await put(pod, 1)
    async with running("postgres", volume, "renewed") as pod:
        assert await kept(pod, "renewed") == [1]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await connect(pod, "pass")


async def test_a_killed_pod_takes_its_server_along_and_the_next_recovers_what_was_committed(volume: Path) -> None:
    note = volume / "pgdata" / "postmaster.pid"
    async with running("postgres", volume) as pod:
        await put(pod, 1)
        lines = note.read_text().splitlines()
        pod.end(signal.SIGKILL)
        await until_closed(pod.port)
    # A node that loses power leaves it; in the next container the same number may be that of another process.
    note.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    async with running("postgres", volume) as pod:
        assert await kept(pod) == [1]
        assert "automatic recovery" in pod.log.read_text() or "was interrupted" in pod.log.read_text()


async def test_the_next_pod_waits_until_the_one_before_has_left_the_volume(volume: Path) -> None:
    async with running("postgres", volume) as first:
        await put(first, 1)
        second = start("postgres", volume, "pass")
        try:
            assert second.process.poll() is None
            assert await kept(first) == [1]
            assert first.end() == 0
            await until_open(second)
            assert await kept(second) == [1]
        finally:
            second.end()


async def test_a_volume_that_was_opened_to_its_group_is_closed_again(volume: Path) -> None:
    async with running("postgres", volume) as pod:
        await put(pod, 1)
    for path in (volume, volume / "pgdata"):
        path.chmod(0o2775)
    async with running("postgres", volume) as pod:
        assert await kept(pod) == [1]


async def test_a_first_start_that_was_stopped_half_way_starts_over(volume: Path) -> None:
    pod = start("postgres", volume, "pass")
    await until(lambda: (volume / "pgdata.new" / "PG_VERSION").exists())
    assert pod.end() == 1
    assert not (volume / "pgdata").exists()
    assert "stopped by SIGTERM" in pod.log.read_text()
    async with running("postgres", volume) as pod:
        await put(pod, 1)


def test_a_user_without_a_name_is_told_what_to_do(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_uid: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(EmbeddedServerFailed, match="has none in /etc/passwd: run the image as its own user"):
            embedded_pod.serve_postgres(volume, host="127.0.0.1", port=1, verifier="x")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_without_a_password_or_a_volume_nothing_starts(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [
        sys.executable,
        "-m",
        "commonplace_runtime",
        "embedded",
        kind,
        "--data-dir",
        str(tmp_path / "file" / "x"),
    ]
    without = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert without.returncode == 78
    assert f"{contract.ENV_EMBEDDED_PASSWORD} is not set" in without.stderr
    environ = environment(**{contract.ENV_EMBEDDED_PASSWORD: "x"})
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "cannot be written by uid" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_redis_asks_for_the_password_and_keeps_what_it_was_told(volume: Path, end: signal.Signals) -> None:
    password = 'pa"ss \\ wörd'
    async with running("redis", volume, password) as pod:
        async with redis.asyncio.Redis(port=pod.port, password=password) as client:
            await client.set("kept", "1")
            # Written within a second by itself; asked for, so that a kill right now loses nothing.
            await client.config_set("appendfsync", "always")
            await client.set("kept", "2")
            assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
        async with redis.asyncio.Redis(port=pod.port) as stranger:
            with pytest.raises(redis.exceptions.AuthenticationError):
                await stranger.get("kept")
        assert password.encode() not in seen_by_everybody(pod)
        status = pod.end(end)
        assert status == (0 if end == signal.SIGTERM else -signal.SIGKILL)
        await until_closed(pod.port)
    async with (
        running("redis", volume, password) as pod,
        redis.asyncio.Redis(port=pod.port, password=password) as client,
    ):
        assert await client.get("kept") == b"2"
