"""What the verbs of the command line share: settings, the administrator's connection, tables and times."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias, TypeVar
from uuid import UUID

from cyclopts import Parameter

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.services.readiness import check_administrator
from commonplace_runtime.settings import EXIT_MISCONFIGURED, Settings, is_set, settings_or_exit
from commonplace_runtime.store.pool import Pool, Record, open_pool_patiently

T = TypeVar("T")
ENVIRONMENT: ContextVar[Mapping[str, str]] = ContextVar("environment")
"""Set by the composition root before any verb runs."""
Row: TypeAlias = Record | Mapping[str, Any]
Json = Annotated[bool, Parameter(help="Print JSON, one line.", negative="")]
Team = Annotated[str, Parameter(help="The team's id, slug or name.")]


def settings_with(*needed: str) -> Settings:
    """Settings that have the fields `needed`; or lines on stderr for what is missing or wrong, and exit code 78."""
    environ = ENVIRONMENT.get()
    settings = settings_or_exit(environ, [_is_missing(name) for name in needed if not is_set(environ, name)])
    if missing := missing_settings(settings, *needed):
        print("\n".join(missing), file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED)
    configure_logging(settings.log_level, settings.log_format)
    return settings


def missing_settings(settings: Settings, *needed: str) -> Sequence[str]:
    """A line for each of the fields `needed` that is not set."""
    return [f"commonplace: {_is_missing(name)}" for name in needed if getattr(settings, name) is None]


def _is_missing(name: str) -> str:
    return f"{contract.ENV_PREFIX}{name.upper()} is not set: {_WHAT[name]}"


_WHAT = {
    "embedded_password": "the password that the server shall ask for",
    "database_url": "the connection string of a member of commonplace_runtime, postgresql://user:password@host/database",
    "admin_database_url": "the connection string of a member of commonplace_admin, postgresql://user:password@host/database",
}


async def with_admin_pool(
    settings: Settings,
    patience: float,
    work: Callable[[Pool], Coroutine[Any, Any, T]],
    *,
    statement_timeout: float | None = None,
) -> T:
    """
    What `work` makes of an administrator's connection, waited for up to `patience` seconds. Raises Unavailable.

    statement_timeout: seconds, the settings' by default.
    """
    if settings.admin_database_url is None:
        raise InvalidInput("no administrator's connection string")
    pool = await open_pool_patiently(
        settings.admin_database_url.get_secret_value(),
        patience=patience,
        size=1,
        connect_timeout=settings.database_connect_timeout_seconds,
        statement_timeout=statement_timeout or settings.database_statement_timeout_seconds,
        application="commonplace-cli",
    )
    async with pool:
        return await work(pool)


def as_admin(work: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
    """`work` on an administrator's connection to a schema of this program. Raises what `check_administrator` does."""

    async def checked(pool: Pool) -> T:
        await check_administrator(pool)
        return await work(pool)

    return asyncio.run(with_admin_pool(settings_with("admin_database_url"), 5.0, checked))


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


def print_rows(rows: Sequence[Row], columns: Mapping[str, str], as_json: bool) -> None:
    """A table, or one line of JSON. columns: heading → the row's field."""
    table = [{shown: _plain(row[column]) for shown, column in columns.items()} for row in rows]
    if as_json:
        print(json.dumps(table))
        return
    cells = [list(columns), *([_cell(row[shown]) for shown in columns] for row in table)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")  # not 4e-05
    return printable(str(value))


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def read_moment(text: str | None) -> datetime | None:
    """A time in ISO 8601 with an offset. Raises InvalidInput."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no time: write it like 2027-01-31T00:00:00Z") from error
    if moment.tzinfo is None:
        raise InvalidInput(f"{text!r} has no offset: write it like 2027-01-31T00:00:00Z")
    return moment
