"""
`make conformance`: the official MCP suite and the official Python client against a running api.

Each run of the suite must fail exactly what `expected.yaml` says it fails.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable
from typing import Final

import structlog

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres
from e2e.conformance.client import ERAS, memory_works, recall_works
from e2e.conformance.fixtures import FIXTURE_PATH
from e2e.conformance.server import running_api
from e2e.conformance.suite import REVISIONS, Suite, expected_failures, install, run_suite, surprises
from e2e.report import CheckFailed, Report, complain

RUNS: Final = {"recall": contract.MCP_PATH, "memory": contract.MCP_MEMORY_PATH, "door": FIXTURE_PATH}
EXIT_INTERRUPTED: Final = 130
CLIENTS: Final = {"recall": recall_works, "memory": memory_works}


def main() -> int:
    """Exit code: 0 when everything was as expected, 130 when interrupted, else 1."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    report = Report()
    report.promise(*(f"Python client, {era}, {name}" for name in CLIENTS for era in ERAS))
    report.promise(*(f"suite {revision}, {name}" for name in RUNS for revision in REVISIONS))
    try:
        asyncio.run(_check_all(report))
    except CheckFailed as error:
        complain(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain("interrupted")
        return EXIT_INTERRUPTED
    print(report.summary())
    return 0 if report.succeeded else 1


async def _check_all(report: Report) -> None:
    task = asyncio.current_task()
    if task is not None:  # like Ctrl-C: what was started is ended
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with report.step("npm: the suite and Node 22"):
        suite = await install()
    with EmbeddedPostgres(settings={"fsync": "off"}) as postgres:
        async with running_api(postgres) as api:
            for name, works in CLIENTS.items():
                for era in ERAS:
                    await _check(report, f"Python client, {era}, {name}", works(api, RUNS[name], era))
            for name, path in RUNS.items():
                for revision in REVISIONS:
                    judged = _judged(suite, api.url(path), name, revision)
                    await _check(report, f"suite {revision}, {name}", judged)


async def _check(report: Report, row: str, work: Awaitable[str]) -> None:
    try:
        with report.step(row), report.check(row) as checked:
            checked.seen = await _unwrapped(work)
    except Exception as error:  # noqa: BLE001 - the table tells it; the rows after it are wanted too
        report.say(str(error))


async def _unwrapped(work: Awaitable[str]) -> str:
    """`work` with its first fault by itself: the client's task group hands out groups of one."""
    try:
        return await work
    except ExceptionGroup as group:
        first: Exception = group
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from group


async def _judged(suite: Suite, url: str, name: str, revision: str) -> str:
    outcome = await run_suite(suite, url, revision)
    found = surprises(outcome, expected_failures(name, revision))
    if found:
        raise CheckFailed("; ".join(found))
    return str(outcome)


if __name__ == "__main__":
    sys.exit(main())
