"""Runs the command line as a user runs it: a process, its output, its exit code."""

import json
import os
import subprocess
import sys
from typing import Any

from commonplace_runtime import contract
from tests.conftest import Database


def environment(database: Database | None, **environ: str) -> dict[str, str]:
    """A clean environment, an administrator's where `database` is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMMONPLACE_", "CLAUDE_MEM_"))}
    if database is not None:
        clean[contract.ENV_ADMIN_DATABASE_URL] = database.admin_url
    return clean | environ


def commonplace(database: Database | None, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """One run, with nothing on its standard input."""
    return piped(b"", environment(database, **environ), *words)


def piped(given: bytes, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """One run with `given` on its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "commonplace_runtime", *words],
        env=environ,
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def said(database: Database, *words: str) -> str:
    """What a run that worked printed, without a word on standard error."""
    done = commonplace(database, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def answer(database: Database, *words: str) -> Any:
    """The same with `--json`."""
    return json.loads(said(database, *words, "--json"))
