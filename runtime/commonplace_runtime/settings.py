"""Every environment variable of the runtime, read once at start. Nothing else reads the environment."""

import sys
from collections.abc import Mapping
from typing import Annotated, Final, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from commonplace_runtime import contract

EXIT_MISCONFIGURED: Final = 78
"""`EX_CONFIG` of sysexits.h: restarting will not help, an administrator must act."""

_ALIASES: Final[Mapping[str, str]] = {
    "DATABASE_URL": "CLAUDE_MEM_SERVER_DATABASE_URL",
    "REDIS_URL": "CLAUDE_MEM_REDIS_URL",
    "HOST": "CLAUDE_MEM_SERVER_HOST",
    "PORT": "CLAUDE_MEM_SERVER_PORT",
    "PUBLIC_URL": "CLAUDE_MEM_PUBLIC_URL",
    "PROVIDER": "CLAUDE_MEM_SERVER_PROVIDER",
    "MODEL": "CLAUDE_MEM_SERVER_MODEL",
}

_ENCODED: Final = "; write #, /, ? and @ in a password as %23, %2F, %3F and %40"


def _http_url(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value.rstrip("/")


def _is_url(value: SecretStr, *schemes: str) -> bool:
    """Whether it parses; a password with `#`, `/`, `?` or `@` in it makes it another address, or none."""
    try:
        parts = urlsplit(value.get_secret_value())
        parse_qs(parts.query, strict_parsing=bool(parts.query))
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        return False
    return parts.scheme in schemes and not parts.fragment and parts.netloc.count("@") <= 1


def _database_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _is_url(value, "postgres", "postgresql"):
        raise ValueError(f"must look like postgresql://user:password@host:5432/database{_ENCODED}")
    return value


def _redis_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _is_url(value, "redis", "rediss", "unix"):
        raise ValueError(f"must look like redis://host:6379/0{_ENCODED}")
    return value


DatabaseUrl = Annotated[SecretStr | None, AfterValidator(_database_url)]
RedisUrl = Annotated[SecretStr | None, AfterValidator(_redis_url)]


class Settings(BaseSettings):
    """
    Settings of api, worker and command line; the variable is the field's name in capitals after `COMMONPLACE_`.

    The server variables that claude-mem documents are accepted as aliases (`CLAUDE_MEM_SERVER_DATABASE_URL`, …);
    our own name wins where both are set.
    """

    model_config = SettingsConfigDict(env_prefix=contract.ENV_PREFIX, extra="ignore", populate_by_name=True)

    database_url: DatabaseUrl = None
    """Postgres for api and worker: a member of `commonplace_runtime`. No default."""
    admin_database_url: DatabaseUrl = None
    """Postgres for `migrate` and the administrative verbs: may act as `commonplace_owner`. No default."""
    redis_url: RedisUrl = None
    """Redis or Valkey that carries the doorbell. Unset: workers poll only."""
    host: str = "127.0.0.1"
    """Address that the api binds to. Loopback unless told."""
    port: int = Field(contract.API_PORT, ge=0, le=65535)
    """Port of the api; 0 takes a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of `/metrics`. Loopback unless told."""
    metrics_port: int = Field(contract.METRICS_PORT, ge=0, le=65535)
    """Port of `/metrics`, apart from the api's; 0 takes a free one."""
    public_url: Annotated[str, AfterValidator(_http_url)] = ""
    """What clients are told to dial; empty: taken from the request."""
    api_concurrency: int = Field(1000, ge=1, le=100_000)
    """Connections, and requests, that the api holds open at once; who comes later is told 503."""
    database_pool_size: int = Field(10, ge=1, le=200)
    """Connections to Postgres a process may hold."""
    database_connect_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long one attempt to connect may take."""
    database_statement_timeout_seconds: float = Field(30.0, gt=0, le=600)
    """How long one statement may run before Postgres ends it."""
    startup_timeout_seconds: float = Field(120.0, gt=0)
    """How long a process waits at start for Postgres before it gives up."""
    wait_timeout_seconds: float = Field(30.0, gt=0, le=300)
    """How long `wait=true` may hold an answer back."""
    provider: Literal["extractive", "anthropic"] = "extractive"
    """Who turns events into memories; `extractive` needs no model and no key."""
    model: str = ""
    """Model name, verbatim; empty: the provider's default."""
    provider_base_url: Annotated[str, AfterValidator(_http_url)] = ""
    """Another endpoint of the provider's dialect; empty: the provider's own."""
    provider_timeout_seconds: float = Field(60.0, gt=0, le=600)
    """Time-out of one model call."""
    anthropic_api_key: SecretStr | None = Field(None, validation_alias=contract.ENV_ANTHROPIC_API_KEY)
    """Key for `provider=anthropic`."""
    worker_concurrency: int = Field(16, ge=1, le=1000)
    """Sessions that one worker process works on at once."""
    worker_poll_seconds: float = Field(2.0, gt=0, le=300)
    """How often an idle worker looks for due jobs without a doorbell; jittered."""
    worker_lease_seconds: float = Field(60.0, ge=3, le=3600)
    """How long a claimed session stays reserved without a heartbeat."""
    worker_grace_seconds: float = Field(25.0, ge=0, le=3600)
    """How long SIGTERM lets running jobs finish before they are handed back."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object a line, or lines for people."""


def load_settings(environ: Mapping[str, str]) -> Settings:
    """
    Settings from `environ` (normally `os.environ`). Raises `pydantic.ValidationError` with all faults at once.
    """
    given = {name.upper(): value for name, value in environ.items() if value != ""}
    values: dict[str, str] = {}
    for field in Settings.model_fields:
        name = field.upper()
        found = given.get(contract.ENV_PREFIX + name, given.get(_ALIASES.get(name, "")))
        if found is not None:
            values[field] = found
    key = given.get(contract.ENV_ANTHROPIC_API_KEY, given.get("CLAUDE_MEM_ANTHROPIC_API_KEY"))
    if key is not None:
        values["anthropic_api_key"] = key
    return Settings.model_validate(values)


def explain(error: ValidationError) -> str:
    """A ValidationError as lines for an administrator: the variable's name and what would be right."""
    lines = ["the configuration is invalid:"]
    for fault in error.errors(include_url=False, include_input=False):
        field = str(fault["loc"][0]) if fault["loc"] else "?"
        known = "anthropic_api_key" if field == contract.ENV_ANTHROPIC_API_KEY else field
        name = contract.ENV_ANTHROPIC_API_KEY if known == "anthropic_api_key" else contract.ENV_PREFIX + field.upper()
        lines.append(f"- {name}: {fault['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def settings_or_exit(environ: Mapping[str, str]) -> Settings:
    """`load_settings`, or one readable message on stderr and exit code 78."""
    try:
        return load_settings(environ)
    except ValidationError as error:
        print(explain(error), file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED) from None
