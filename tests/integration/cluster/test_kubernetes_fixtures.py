"""One control plane for all workers of a test run, none for a run that needs none, and none after any run."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from e2e.cluster.processes import wait_until

REPOSITORY: Final = Path(__file__).resolve().parents[3]
SUITE: Final = """
import os
from pathlib import Path
import pytest
from e2e.cluster.processes import wait_until

@pytest.mark.parametrize("number", range(2))
def test_with_cluster(number, control_plane, namespace):
    Path("seen", f"{number} {os.getpid()}").write_text(str(control_plane.state_dir))
    if "BOTH" in os.environ:
        assert wait_until(lambda: len(list(Path("seen").iterdir())) == 2, seconds=60)
    if "HANG" in os.environ:
        wait_until(lambda: False, seconds=600)

def test_without():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "seen").mkdir()
    (tmp_path / "tmp").mkdir()
    return tmp_path


def _pytest(suite: Path, *arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.kubernetes_fixtures", *arguments],
        cwd=suite,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(suite / "tmp"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _seen(suite: Path) -> Sequence[Path]:
    return [Path(note.read_text()) for note in (suite / "seen").iterdir()]


def _leftovers(suite: Path) -> list[str]:
    return [entry.name for entry in (suite / "tmp").iterdir() if entry.name.startswith("commonplace-")]


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "two workers"])
def test_all_workers_share_one_control_plane_that_ends_with_the_run(workers: list[str], suite: Path) -> None:
    variables = {"BOTH": "1"} if workers else {}
    with _pytest(suite, *workers, **variables) as run:
        output = run.communicate(timeout=120)[0].decode()
    assert run.returncode == 0, output
    assert len(_seen(suite)) == 2
    assert len(set(_seen(suite))) == 1
    assert len({note.name.split()[1] for note in (suite / "seen").iterdir()}) == (2 if workers else 1)
    assert _leftovers(suite) == []


def test_a_run_that_needs_none_starts_none(suite: Path) -> None:
    with _pytest(suite, "-k", "without") as run:
        output = run.communicate(timeout=60)[0].decode()
    assert run.returncode == 0, output
    assert _leftovers(suite) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_runs_on_after_a_run_that_was_broken_off(number: signal.Signals, suite: Path) -> None:
    with _pytest(suite, "-n1", HANG="1") as run:
        assert wait_until(lambda: bool(_seen(suite)) and _seen(suite)[0] != Path(), seconds=60)
        (state,) = _seen(suite)
        run.send_signal(number)
        run.communicate(timeout=60)
    assert wait_until(lambda: not state.exists(), seconds=30)
    # After SIGKILL nobody is left to remove the empty file that the workers lock.
    assert _leftovers(suite) in ([], [f"{state.name}.lock"] if number == signal.SIGKILL else [])
