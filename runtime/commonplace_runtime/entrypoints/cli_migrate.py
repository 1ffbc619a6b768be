"""`commonplace migrate`: the schema, the roles, and a report for whoever started it as a Job."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from pydantic import SecretStr, ValidationError

from commonplace_runtime import contract
from commonplace_runtime.contract import MigrationReason, MigrationReport
from commonplace_runtime.domain.errors import DomainError, Unavailable
from commonplace_runtime.entrypoints.terminal import ENVIRONMENT, Json, missing_settings, with_admin_pool
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.services.migrate import Prepared, prepare_database
from commonplace_runtime.settings import EXIT_MISCONFIGURED, Settings, explain, load_settings
from commonplace_runtime.store.migrate import SchemaNewer
from commonplace_runtime.store.pool import STORE_FAULTS, Refused
from commonplace_runtime.store.roles import Login, RolesMissing

STATEMENT_SECONDS: Final = 1800.0
"""How long one statement of a migration may run: it may have to rewrite a table."""


class _Misconfigured(Exception):
    """The environment cannot work; the message says what would be right."""

    def __init__(self, message: str, reason: MigrationReason) -> None:
        super().__init__(message)
        self.reason = reason


def migrate(
    *,
    create_roles: Annotated[bool, Parameter(negative="")] = False,
    report_to: Path | None = None,
    allow_newer_schema: Annotated[bool, Parameter(negative="")] = False,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    Bring the database schema up to date.

    Where COMMONPLACE_RUNTIME_LOGIN_URL or COMMONPLACE_OPERATOR_LOGIN_URL is set, that log-in is made too if it does
    not work yet.

    create_roles: also create the four group roles where they are missing; needs a role with CREATEROLE.
    report_to: file for a report in JSON, written whatever comes of it.
    allow_newer_schema: take a schema that is newer than this program as it is, to go back by one version.
    """
    try:
        settings = _settings()
        done = asyncio.run(_prepare(settings, create_roles=create_roles, allow_newer=allow_newer_schema))
    except _Misconfigured as error:
        _write(report_to, MigrationReport(outcome="failed", reason=error.reason, message=str(error)))
        print(error, file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED) from None
    except Exception as error:
        _write(report_to, report_of(error))
        if isinstance(error, RolesMissing):
            print(error.sql, file=sys.stderr)
        raise
    message = f"the schema is at version {done.schema_version}"
    _write(
        report_to,
        MigrationReport(outcome="migrated", reason="Migrated", message=message, schema_version=done.schema_version),
    )
    if json_:
        applied = [item.name for item in done.applied]
        changed = list(done.changed_logins)
        print(json.dumps({"schemaVersion": done.schema_version, "applied": applied, "changedLogins": changed}))
        return
    for item in done.applied:
        print(f"applied {item.version:04d}_{item.name}")
    for name in done.changed_logins:
        print(f"made the log-in {name}")
    print(message)


def report_of(error: Exception) -> MigrationReport:
    """What is reported of a failure; of one that nobody foresaw the class only, whose text may quote anything."""
    message = type(error).__name__
    if isinstance(error, DomainError):
        message = error.message
    elif isinstance(error, (*STORE_FAULTS, OSError)):
        message = str(error)
    reason: MigrationReason = "MigrationFailed"
    version, sql = None, ""
    match error:
        case RolesMissing():
            reason, sql = "DatabaseRolesMissing", error.sql
        case SchemaNewer():
            reason, version = "SchemaNewer", error.version
        case Refused():
            reason = "DatabaseRefused"
        case Unavailable():
            reason = "DatabaseUnavailable"
        case _:
            pass
    return MigrationReport(outcome="failed", reason=reason, message=message, schema_version=version, sql=sql)


def _settings() -> Settings:
    """Settings of a migration. Raises _Misconfigured."""
    try:
        settings = load_settings(ENVIRONMENT.get())
    except ValidationError as error:
        addresses = ("admin_database_url", "runtime_login_url", "operator_login_url")
        is_address = any(fault["loc"] and fault["loc"][0] in addresses for fault in error.errors(include_input=False))
        raise _Misconfigured(
            explain(error, ENVIRONMENT.get()), "DatabaseRefused" if is_address else "MigrationFailed"
        ) from None
    if missing := missing_settings(settings, "admin_database_url"):
        raise _Misconfigured("\n".join(missing), "DatabaseRefused")
    logins = _logins(settings)
    if len({login.name for login in logins}) < len(logins):
        both = " and ".join(login.variable for login in logins)
        raise _Misconfigured(f"commonplace: {both} name one role: give each its own", "DatabaseRefused")
    configure_logging(settings.log_level, settings.log_format)
    return settings


async def _prepare(settings: Settings, *, create_roles: bool, allow_newer: bool) -> Prepared:
    return await with_admin_pool(
        settings,
        settings.startup_timeout_seconds,
        lambda pool: prepare_database(
            pool,
            with_roles=create_roles,
            logins=_logins(settings),
            allow_newer=allow_newer,
            login_seconds=settings.database_connect_timeout_seconds,
        ),
        statement_timeout=STATEMENT_SECONDS,
    )


def _logins(settings: Settings) -> tuple[Login, ...]:
    wanted: tuple[tuple[SecretStr | None, str, str, str], ...] = (
        (settings.runtime_login_url, contract.ROLE_RUNTIME, contract.ENV_RUNTIME_LOGIN_URL, "runtime-uri"),
        (settings.operator_login_url, contract.ROLE_OPERATOR, contract.ENV_OPERATOR_LOGIN_URL, "operator-uri"),
    )
    return tuple(
        Login(url=url.get_secret_value(), group=group, variable=variable, secret_key=key)
        for url, group, variable, key in wanted
        if url is not None
    )


def _write(path: Path | None, report: MigrationReport) -> None:
    """In place: a container's termination log is a mount, which nothing can be renamed to."""
    if path is None:
        return
    try:
        path.write_text(report.to_json() + "\n", encoding="ascii")
    except OSError as error:
        print(f"commonplace: the report cannot be written to {path}: {error.strerror}", file=sys.stderr)
