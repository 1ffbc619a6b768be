"""Process 1 of a node: obeys in order, tells what ended, and goes with its supervisor."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


class Init:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def ask(self, **request: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def init() -> Iterator[Init]:
    with subprocess.Popen(
        [sys.executable, "-m", "e2e.cluster.node_init"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as process:
        yield Init(process)
        process.kill()


def test_commands_run_in_order_and_stop_at_the_first_that_fails(init: Init, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    write = [["sh", "-c", f"echo {word} >> {trace}"] for word in ("one", "two")]
    init.ask(commands=write)
    assert init.answer() == {"done": True}
    init.ask(commands=[["sh", "-c", "echo no >&2; exit 3"], write[0]])
    assert init.answer() == {"failed": "sh -c echo no >&2; exit 3: no"}
    assert trace.read_text() == "one\ntwo\n"


def test_a_command_that_does_not_exist_is_named(init: Init) -> None:
    init.ask(commands=[["/missing/program"]])
    assert "/missing/program" in init.answer()["failed"]


def test_a_program_that_ends_is_told_with_its_status_and_its_words_are_in_the_log(init: Init, tmp_path: Path) -> None:
    init.ask(launch="broken", argv=["sh", "-c", "echo words; exit 4"], log=str(tmp_path / "log"))
    assert init.answer() == {"ended": "broken", "status": 4}
    assert (tmp_path / "log").read_text() == "words\n"


def test_it_ends_with_its_input(init: Init) -> None:
    assert init.process.stdin is not None
    init.process.stdin.close()
    assert init.process.wait(timeout=30) == 0
