"""The official suite: how it is installed, run, and held against what is expected of it."""

import asyncio
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.report import CheckFailed

SUITE: Final = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
NODE: Final = "node@22.23.3"
"""The suite needs Node 22 and says so nowhere; npm carries it as a package, whatever Node runs npm."""
REVISIONS: Final = ("2025-11-25", "2026-07-28")
RUN_SECONDS: Final = 300.0
INSTALL_SECONDS: Final = 600.0
_EXPECTED: Final = Path(__file__).with_name("expected.yaml")
_TIME: Final = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """An installed suite."""

    node: Path
    program: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Checks of one run. `failed`: failing check ids by scenario; a scenario without any has an empty list."""

    failed: Mapping[str, Sequence[str]]
    passed: int

    def __str__(self) -> str:
        good = sum(not checks for checks in self.failed.values())
        bad = sum(len(checks) for checks in self.failed.values())
        return f"{good} of {len(self.failed)} scenarios pass; {self.passed} checks pass, {bad} fail as expected"


def _cache() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "commonplace" / "conformance"


async def install() -> Suite:
    """The suite and a Node that runs it, from npm into the cache. Raises CheckFailed."""
    root = _cache()
    suite = Suite(node=root / "node_modules/.bin/node", program=root / "node_modules/.bin/conformance")
    stamp, wanted = root / "installed", f"{SUITE} {NODE}"
    if stamp.exists() and stamp.read_text() == wanted:
        return suite
    npm = shutil.which("npm")
    if npm is None:
        raise CheckFailed("npm is needed, of any version: it comes with Node.js")
    root.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(root), SUITE, NODE]
    code, output = await _run(command, INSTALL_SECONDS, cwd=root)
    if code != 0:
        raise CheckFailed(f"npm install ended with {code}:\n{output[-2000:]}")
    code, output = await _run([str(suite.node), "--version"], 30, cwd=root)
    if code != 0 or not output.startswith("v22."):
        raise CheckFailed(f"the Node from npm does not run (exit {code}): {output[-500:]}")
    stamp.write_text(wanted)
    return suite


async def run_suite(suite: Suite, url: str, revision: str) -> Outcome:
    """All scenarios that `revision` asks of a server, against `url`. Raises CheckFailed when the suite did not run."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        command = [str(suite.node), str(suite.program), "server", "--url", url, "--requirements", revision]
        code, output = await _run([*command, "-o", directory], RUN_SECONDS, cwd=Path(directory))
        checks = _checks(Path(directory))
    # 1 says that something failed, which is for us to judge.
    if code not in (0, 1) or not checks:
        raise CheckFailed(f"the suite ended with {code}:\n{output[-2000:]}")
    return Outcome(
        failed={
            scenario: sorted({check["id"] for check in found if check["status"] == "FAILURE"})
            for scenario, found in checks.items()
        },
        passed=sum(check["status"] == "SUCCESS" for found in checks.values() for check in found),
    )


def _checks(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """The suite's results by scenario: it leaves a folder for each, with the time in its name."""
    return {
        _TIME.sub("", file.parent.name).removeprefix("server-"): json.loads(file.read_text())
        for file in sorted(directory.glob("*/checks.json"))
    }


def expected_failures(run: str, revision: str) -> dict[str, str]:
    """What `run` is known to fail at `revision`, each with its reason."""
    entries: list[dict[str, Any]] = yaml.safe_load(_EXPECTED.read_text())
    return {
        name: entry["reason"]
        for entry in entries
        if run in entry.get("runs", [run]) and revision in entry.get("revisions", [revision])
        for name in entry["fails"]
    }


def surprises(outcome: Outcome, expected: Mapping[str, str]) -> list[str]:
    """What failed without being expected to, and what was expected to fail and did not."""
    found = []
    for scenario, failing in outcome.failed.items():
        if scenario in expected:
            if not failing:
                found.append(f"{scenario} passes: take it from expected.yaml")
            continue
        known = {name.partition(":")[2] for name in expected if name.partition(":")[0] == scenario}
        found += [f"{scenario}:{check} fails" for check in failing if check not in known]
        found += [f"{scenario}:{check} passes: take it from expected.yaml" for check in known - set(failing)]
    found += [
        f"{name} is expected to fail and no longer part of the suite"
        for name in expected
        if name.partition(":")[0] not in outcome.failed
    ]
    return sorted(found)


async def _run(command: Sequence[str], seconds: float, *, cwd: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise CheckFailed(f"{command[0]} took longer than {seconds:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")
