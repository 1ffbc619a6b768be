"""`commonplace dev` as a developer runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.timeout(240)


@contextmanager
def dev(data_dir: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("COMMONPLACE_", "CLAUDE_MEM_"))
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "commonplace_runtime",
            "dev",
            "--data-dir",
            str(data_dir),
            "--port",
            "0",
            "--json",
            *words,
        ],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=(data_dir.parent / "dev.log").open("a"),
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (data_dir.parent / "dev.log").read_text()[-2000:]
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)


def send(stack: dict[str, Any], text: str) -> Any:
    answer = httpx2.post(
        stack["base_url"] + "/v1/events",
        params={"wait": "true"},
        json={"sourceType": "api", "eventType": "user_prompt", "occurredAtEpoch": 1, "payload": {"prompt": text}},
        headers={"Authorization": f"Bearer {stack['key']}"},
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def recall(stack: dict[str, Any], query: str) -> list[str]:
    answer = httpx2.post(
        stack["base_url"] + "/v1/search",
        json={"query": query},
        headers={"Authorization": f"Bearer {stack['key']}"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return [item["content"] for item in answer.json()["observations"]]


def test_one_line_says_all_and_a_second_run_keeps_key_and_memories(tmp_path: Path) -> None:
    data = tmp_path / "data dir"
    with dev(data) as (process, first):
        assert set(first) >= {"base_url", "database_url", "admin_database_url", "key", "mcp_url"}
        assert first["mcp_url"] == first["base_url"] + "/v1/mcp"
        done = send(first, "We decided to sign releases with the hardware key in Oslo")
        assert done["generationJob"]["status"] == "completed"
        assert any("Oslo" in text for text in recall(first, "release signing"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert (data / "dev-key").stat().st_mode & 0o077 == 0
    with dev(data, "--no-worker") as (_, second):
        assert second["key"] == first["key"]
        assert any("Oslo" in text for text in recall(second, "release signing"))


def test_after_sigkill_nothing_runs_on_and_the_next_start_works(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with dev(data) as (process, first):
        send(first, "We decided to keep the staging cluster in Bergen")
        process.kill()
    deadline = time.monotonic() + 30
    while using := commands_naming(str(data)):
        assert time.monotonic() < deadline, f"still there: {using}"
        os.sched_yield()
    with dev(data) as (_, second):
        assert any("Bergen" in text for text in recall(second, "staging cluster"))


def test_a_port_in_use_is_said_plainly(tmp_path: Path) -> None:
    with dev(tmp_path / "one") as (_, first):
        port = first["base_url"].rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "commonplace_runtime", "dev", "--data-dir", str(tmp_path / "two"), "--port", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"port {port} is in use: say --port N" in done.stderr


def test_a_second_run_on_the_same_data_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with dev(tmp_path / "data") as (process, first):
        done = subprocess.run(
            [sys.executable, "-m", "commonplace_runtime", "dev", "--data-dir", str(tmp_path / "data"), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "is in use" in done.stderr
        assert process.poll() is None
        assert recall(first, "anything at all") == []


def test_without_its_postgres_it_ends_and_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with dev(data) as (process, _):
        os.kill(int((data / "pgdata" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGQUIT)
        assert process.wait(60) == 1
    assert "Postgres ended by itself" in (tmp_path / "dev.log").read_text()


def commands_naming(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if text in command:
                found.append(command)
    return found
