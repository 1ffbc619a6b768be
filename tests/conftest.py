"""Fixtures that every ring shares. Servers are started when a test first asks for them."""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import asyncpg
import pytest
from xdist.scheduler import LoadScopeScheduling

from commonplace_runtime.embedded import EmbeddedPostgres, EmbeddedRedis
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.store.pool import Pool, open_pool

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.kubernetes_fixtures"]

ONE_AFTER_THE_OTHER = ("tests/integration/operator/", "tests/integration/demo/", "tests/charts/")
"""Folders whose tests share one server that serves all of them: an operator watches every namespace."""


LONG = (
    "tests/integration/runtime/api/test_fuzz.py",
    "tests/integration/runtime/store/test_upgrade.py",
    "tests/integration/runtime/store/test_plans.py",
    "tests/integration/runtime/api/test_transfer.py",
    "tests/integration/runtime/cli/test_dev.py",
    "tests/contract/test_two_teams.py",
)
"""Files with few tests that take long: begun first, so that no worker is left alone with one at the end."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """
    Hands whole files, and whole folders of `ONE_AFTER_THE_OTHER`, to one worker.

    `LONG` first, then where most tests are.

    xdist's own `loadgroup` writes to a field that pytest 9 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in ONE_AFTER_THE_OTHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    config.option.loadscopereorder = False  # the order below, which knows of `LONG`
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = [item.nodeid.partition("::")[0] for item in items]
    tests = Counter(files)
    order = {file: (file not in LONG, -tests[file], place) for place, file in enumerate(dict.fromkeys(files))}
    items.sort(key=lambda item: order[item.nodeid.partition("::")[0]])


LOGINS = {
    "test_runtime": "commonplace_runtime",
    "test_operator": "commonplace_operator",
    "test_admin": "commonplace_admin",
}


@dataclass(frozen=True, kw_only=True)
class Database:
    """A freshly migrated database of its own, and how to reach it in each role."""

    name: str
    superuser_url: str
    admin_url: str
    runtime_url: str
    operator_url: str


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(
        settings={"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
    ) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
async def template_database(postgres: EmbeddedPostgres) -> str:
    """A migrated database that others are copied from: 30 ms instead of a migration each."""
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute("CREATE DATABASE commonplace_template")
    finally:
        await connection.close()
    pool = await open_pool(
        postgres.url(database="commonplace_template"),
        size=1,
        connect_timeout=10,
        statement_timeout=30,
        application="tests",
    )
    async with pool:
        await migrate(pool, with_roles=True)
        for login, role in LOGINS.items():
            await pool.execute(f"CREATE ROLE {login} LOGIN IN ROLE {role}")
    return "commonplace_template"


_made = 0


@pytest.fixture
async def database(postgres: EmbeddedPostgres, template_database: str) -> AsyncIterator[Database]:
    global _made
    _made += 1
    name = f"test_{os.getpid()}_{_made}"
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
        yield Database(
            name=name,
            superuser_url=postgres.url(database=name),
            admin_url=postgres.url(user="test_admin", database=name),
            runtime_url=postgres.url(user="test_runtime", database=name),
            operator_url=postgres.url(user="test_operator", database=name),
        )
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


async def _pool(url: str) -> Pool:
    return await open_pool(url, size=20, connect_timeout=10, statement_timeout=30, application="tests")


@pytest.fixture
async def runtime_pool(database: Database) -> AsyncIterator[Pool]:
    """Connections as a member of `commonplace_runtime`: row-level security applies."""
    async with await _pool(database.runtime_url) as pool:
        yield pool


@pytest.fixture
async def admin_pool(database: Database) -> AsyncIterator[Pool]:
    """Connections as a member of `commonplace_admin`: sees every team."""
    async with await _pool(database.admin_url) as pool:
        yield pool


@pytest.fixture
async def operator_pool(database: Database) -> AsyncIterator[Pool]:
    """Connections as a member of `commonplace_operator`: may only execute its functions."""
    async with await _pool(database.operator_url) as pool:
        yield pool
