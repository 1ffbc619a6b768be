"""Every environment variable of the runtime, read once at start. Nothing else reads the environment."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal, NoReturn
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from commonplace_runtime import contract
from commonplace_runtime.domain.prices import LIST_PRICES, Price
from commonplace_runtime.domain.providers import Choice, ProviderName, parse_choices, provider_named
from commonplace_runtime.domain.quotas import Limits

EXIT_MISCONFIGURED: Final = 78
"""`EX_CONFIG` of sysexits.h: restarting will not help, an administrator must act."""

_INVALID: Final = "the configuration is invalid:"

_ALIASES: Final[Mapping[str, str]] = {
    "DATABASE_URL": "CLAUDE_MEM_SERVER_DATABASE_URL",
    "REDIS_URL": "CLAUDE_MEM_REDIS_URL",
    "HOST": "CLAUDE_MEM_SERVER_HOST",
    "PORT": "CLAUDE_MEM_SERVER_PORT",
    "PUBLIC_URL": "CLAUDE_MEM_PUBLIC_URL",
    "PROVIDER": "CLAUDE_MEM_SERVER_PROVIDER",
    "MODEL": "CLAUDE_MEM_SERVER_MODEL",
    "AUTH_MODE": "CLAUDE_MEM_AUTH_MODE",
    "ALLOW_LOCAL_DEV_BYPASS": "CLAUDE_MEM_ALLOW_LOCAL_DEV_BYPASS",
    "OPENROUTER_BASE_URL": "CLAUDE_MEM_OPENROUTER_BASE_URL",
    "RATE_LIMIT_PER_MIN": "CLAUDE_MEM_RATE_LIMIT_PER_MIN",
    "MONTHLY_REQUEST_CAP": "CLAUDE_MEM_MONTHLY_REQUEST_CAP",
    "MONTHLY_TOKEN_CAP": "CLAUDE_MEM_MONTHLY_TOKEN_CAP",
    "USAGE_METERING": "CLAUDE_MEM_USAGE_METERING",
    "DATABASE_POOL_SIZE": "CLAUDE_MEM_POSTGRES_POOL_MAX",
    "POSTGRES_SSL": "CLAUDE_MEM_POSTGRES_SSL",
    "QUEUE_ENGINE": "CLAUDE_MEM_QUEUE_ENGINE",
    "DOCKER": "CLAUDE_MEM_DOCKER",
    "RUNTIME": "CLAUDE_MEM_RUNTIME",
}
_MILLISECONDS: Final[Mapping[str, str]] = {
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "CLAUDE_MEM_POSTGRES_CONNECTION_TIMEOUT_MS",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "CLAUDE_MEM_POSTGRES_STATEMENT_TIMEOUT_MS",
}
"""Aliases that count in another unit than our names do."""
_REDIS_HOST: Final = "CLAUDE_MEM_REDIS_HOST"
_REDIS_PORT: Final = "CLAUDE_MEM_REDIS_PORT"
_KEYS: Final[Mapping[str, str]] = {
    "anthropic_api_key": contract.ENV_ANTHROPIC_API_KEY,
    "gemini_api_key": contract.ENV_GEMINI_API_KEY,
    "openai_api_key": contract.ENV_OPENAI_API_KEY,
    "openrouter_api_key": contract.ENV_OPENROUTER_API_KEY,
}
"""Fields whose variables carry the providers' own names; each is understood after `CLAUDE_MEM_` too."""

_SWITCH: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("", "0", "false", "no", "off"), False),
}
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
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


def _login_url(value: SecretStr | None) -> SecretStr | None:
    if _database_url(value) is not None and value is not None:
        parts = urlsplit(value.get_secret_value())
        if not (parts.username or parse_qs(parts.query).get("user")):
            raise ValueError("must name the user: postgresql://user:password@host:5432/database")
    return value


def _redis_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _is_url(value, "redis", "rediss", "unix"):
        raise ValueError(f"must look like redis://host:6379/0{_ENCODED}")
    return value


def _endpoint_url(value: str) -> str:
    value = _http_url(value)
    try:
        parts = urlsplit(value)
        is_endpoint = not value or (bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc)
    except ValueError:
        is_endpoint = False
    if not is_endpoint or (value and parts.fragment):
        raise ValueError("must look like https://host/path, without a password")
    return value


def _cap(value: object) -> object:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a whole number; 0 or nothing is no limit") from None
    return None if isinstance(number, int) and number <= 0 else number


def _switch(value: object) -> object:
    if isinstance(value, str):
        known = _SWITCH.get(value.strip().lower())
        if known is None:
            raise ValueError("must be 1 or 0")
        return known
    return value


def _auth_mode(value: str) -> str:
    if value.strip().lower() != "api-key":
        raise ValueError(
            "must be api-key (CLAUDE_MEM_AUTH_MODE too): every request needs a key; "
            "local-dev is not allowed in Docker, nor anywhere else"
        )
    return value


def _queue_engine(value: str, known: ValidationInfo) -> str:
    if not value:
        return value
    if value.strip().lower() != "bullmq":
        raise ValueError("must be bullmq or unset: jobs are in Postgres, and Redis rings for them where there is one")
    if known.data.get("redis_url", "wrong") is None:
        raise ValueError(
            f"bullmq needs {contract.ENV_REDIS_URL} (or CLAUDE_MEM_REDIS_URL), such as redis://host:6379/0"
        )
    return value


def _runtime(value: str, known: ValidationInfo) -> str:
    # On a laptop it is the client's variable, and names what the client shall use.
    if value and known.data.get("docker") and value.strip().lower() not in ("server", "server-beta"):
        raise ValueError("must be server or server-beta in Docker, or unset")
    return value


def _postgres_ssl(value: str) -> str:
    if value and value not in _SSL_MODES:
        raise ValueError(f"must be one of {', '.join(_SSL_MODES)}")
    return value


def _no_bypass(value: str) -> str:
    if value.strip().lower() not in {"", "0", "false", "no"}:
        raise ValueError("must not be set (CLAUDE_MEM_ALLOW_LOCAL_DEV_BYPASS too): nothing here bypasses keys")
    return value


def _choices(value: object) -> object:
    return parse_choices(value) if isinstance(value, str) else value


def _escalation_model(value: str | None) -> str | None:
    name = None if value is None else value.strip()
    return "" if name is not None and name.lower() == "none" else name


def _prices(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError('must be JSON such as {"my-model": {"input": 0.5, "output": 2}}, in USD per million') from None


class ModelPrice(BaseModel):
    """US dollars for a million tokens; bounded, so that what it multiplies to fits the store's columns."""

    model_config = ConfigDict(extra="forbid")

    input: float = Field(ge=0, le=1_000_000, allow_inf_nan=False)
    output: float = Field(ge=0, le=1_000_000, allow_inf_nan=False)


Cap = Annotated[Annotated[int, Field(le=10**15)] | None, BeforeValidator(_cap)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
DatabaseUrl = Annotated[SecretStr | None, AfterValidator(_database_url)]
LoginUrl = Annotated[SecretStr | None, AfterValidator(_login_url)]
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
    runtime_login_url: LoginUrl = None
    """The log-in of api and worker that `migrate` makes where it does not work yet. Unset: it makes none."""
    operator_login_url: LoginUrl = None
    """The same for the operator's log-in."""
    embedded_password: SecretStr | None = None
    """Password of the server that `embedded postgres` or `embedded redis` runs. No default."""
    redis_url: RedisUrl = None
    """Redis or Valkey that carries the doorbell. Unset: workers poll only."""
    queue_engine: Annotated[str, AfterValidator(_queue_engine)] = ""
    """claude-mem's word for where jobs wait; `bullmq` insists on a Redis, and nothing else is known."""
    postgres_ssl: Annotated[str, AfterValidator(_postgres_ssl)] = ""
    """`sslmode` of the connection strings that name none: `require` encrypts, only `verify-full` knows the server."""
    docker: Annotated[bool, BeforeValidator(_switch)] = False
    """Whether this is a container, whose `CLAUDE_MEM_RUNTIME` must then be this server's."""
    runtime: Annotated[str, AfterValidator(_runtime)] = ""
    """claude-mem's name of what runs: `server`, `server-beta`."""
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
    rate_limit_per_min: Cap = None
    """Requests that one key may make in a minute. Beside a team's own the stricter holds; 0 or unset: none."""
    monthly_request_cap: Cap = None
    """Requests that one team may make in a UTC month."""
    monthly_token_cap: Cap = None
    """Tokens of models that one team may use in a UTC month."""
    usage_metering: Annotated[bool, BeforeValidator(_switch)] = False
    """Whether requests are counted also where nothing limits them."""
    provider: Annotated[ProviderName, BeforeValidator(provider_named)] = "extractive"
    """Who turns events into memories; `extractive` needs no model and no key."""
    model: Annotated[str, AfterValidator(str.strip)] = ""
    """Model name, verbatim; empty: the provider's default."""
    provider_base_url: EndpointUrl = ""
    """Another endpoint of the provider's dialect; empty: the provider's own."""
    provider_fallbacks: Annotated[tuple[Choice, ...], NoDecode, BeforeValidator(_choices)] = ()
    """Who is asked when the provider fails: `gemini, anthropic:claude-sonnet-5-5`, in order."""
    escalation_model: Annotated[str | None, AfterValidator(_escalation_model)] = None
    """Model of the provider that is asked once when an answer had not the agreed form; unset: its default, if any;
    empty or `none`: nobody is."""
    model_prices: Annotated[dict[str, ModelPrice], NoDecode, BeforeValidator(_prices)] = {}
    """Prices before those of `domain/prices.py`: JSON of model names to `input` and `output`, USD per million."""
    provider_timeout_seconds: float = Field(60.0, gt=0, le=600)
    """Time-out of one model call."""
    anthropic_api_key: SecretStr | None = Field(None, validation_alias=contract.ENV_ANTHROPIC_API_KEY)
    """Key for `anthropic`."""
    gemini_api_key: SecretStr | None = Field(None, validation_alias=contract.ENV_GEMINI_API_KEY)
    """Key for `gemini`."""
    openai_api_key: SecretStr | None = Field(None, validation_alias=contract.ENV_OPENAI_API_KEY)
    """Key for `openai-compatible`; a server of one's own may need none."""
    openrouter_api_key: SecretStr | None = Field(None, validation_alias=contract.ENV_OPENROUTER_API_KEY)
    """Key for `openrouter`."""
    anthropic_base_url: EndpointUrl = ""
    """Endpoint for `anthropic` where it is not `provider`; so the next three."""
    gemini_base_url: EndpointUrl = ""
    openai_base_url: EndpointUrl = ""
    openrouter_base_url: EndpointUrl = ""
    worker_concurrency: int = Field(16, ge=1, le=1000)
    """Sessions that one worker process works on at once."""
    worker_poll_seconds: float = Field(2.0, gt=0, le=300)
    """How often an idle worker looks for due jobs without a doorbell; jittered."""
    worker_lease_seconds: float = Field(60.0, ge=3, le=3600)
    """How long a claimed session stays reserved without a heartbeat."""
    worker_grace_seconds: float = Field(20.0, ge=0, le=3600)
    """How long SIGTERM lets running jobs finish before they are handed back, which takes up to 8 s more."""
    runtime_name: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)
    """What the queue's metrics call this installation: the label `runtime`."""
    scaling_drain_seconds: float = Field(60.0, ge=1, le=86400)
    """Time in which the waiting jobs shall be done; sets `commonplace_queue_desired_workers`."""
    scaling_age_seconds: float = Field(30.0, ge=1, le=86400)
    """Age that the oldest waiting job shall not exceed; sets the same."""
    scaling_min_workers: int = Field(1, ge=0, le=1000)
    """Fewest workers that are ever asked for; 0 lets an idle runtime go to none."""
    scaling_max_workers: int = Field(10, ge=1, le=1000)
    """Most workers that are ever asked for."""
    auth_mode: Annotated[str, AfterValidator(_auth_mode)] = "api-key"
    """How requests are authenticated. claude-mem's `local-dev` is refused, so that nobody believes it is on."""
    allow_local_dev_bypass: Annotated[str, AfterValidator(_no_bypass)] = ""
    """claude-mem's way round its keys; refused for the same reason."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object a line, or lines for people."""

    @property
    def limits(self) -> Limits:
        """What every team is limited to, whatever its Quotas say."""
        return Limits(
            requests_per_minute=self.rate_limit_per_min,
            requests_per_month=self.monthly_request_cap,
            tokens_per_month=self.monthly_token_cap,
            metered=self.usage_metering,
        )

    @property
    def prices(self) -> Mapping[str, Price]:
        """What every known model costs."""
        own = {name: Price(input=price.input, output=price.output) for name, price in self.model_prices.items()}
        return {**LIST_PRICES, **own}


def load_settings(environ: Mapping[str, str]) -> Settings:
    """
    Settings from `environ` (normally `os.environ`). Raises `pydantic.ValidationError` with all faults at once.
    """
    return Settings.model_validate({field: value for field, (_, value) in _gathered(environ).items()})


def _gathered(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Of each field that is set: the variable that sets it, and its value in the field's unit."""
    given = {name.upper(): value for name, value in environ.items() if value != ""}
    found: dict[str, tuple[str, str]] = {}
    for field in Settings.model_fields:
        variable = next((name for name in _variables(field) if name in given), None)
        if variable is not None:
            value = given[variable]
            found[field] = variable, _seconds(value) if variable in _MILLISECONDS.values() else value
    if _REDIS_HOST in given or _REDIS_PORT in given:
        host, port = given.get(_REDIS_HOST, "127.0.0.1"), given.get(_REDIS_PORT, "6379")
        url = f"redis://[{host}]:{port}/0" if ":" in host else f"redis://{host}:{port}/0"
        found.setdefault("redis_url", (f"{_REDIS_HOST} and {_REDIS_PORT}", url))
    if environ.get(contract.ENV_ESCALATION_MODEL) == "":
        # The one variable that says something by being empty.
        found["escalation_model"] = (contract.ENV_ESCALATION_MODEL, "")
    for field in ("database_url", "admin_database_url"):
        if field in found and "postgres_ssl" in found:
            variable, url = found[field]
            found[field] = variable, _with_sslmode(url, found["postgres_ssl"][1])
    return found


def _variables(field: str) -> Iterator[str]:
    """The variables that may set a field; the first that is set wins."""
    name = field.upper()
    if field in _KEYS:
        yield from (_KEYS[field], f"CLAUDE_MEM_{_KEYS[field]}")
    yield contract.ENV_PREFIX + name
    if name in _ALIASES:
        yield _ALIASES[name]
    if name in _MILLISECONDS:
        yield _MILLISECONDS[name]
    if field == "openrouter_base_url":
        yield name


def _seconds(milliseconds: str) -> str:
    try:
        return str(int(milliseconds) / 1000)
    except (ValueError, OverflowError):
        return milliseconds


def _with_sslmode(url: str, mode: str) -> str:
    if mode not in _SSL_MODES or "sslmode=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}sslmode={mode}"


def explain(error: ValidationError, environ: Mapping[str, str]) -> str:
    """A ValidationError as lines for an administrator: the variable that is set, and what would be right."""
    gathered = _gathered(environ)
    lines = [_INVALID]
    for fault in error.errors(include_url=False, include_input=False):
        field = str(fault["loc"][0]) if fault["loc"] else "?"
        field = next((known for known, variable in _KEYS.items() if variable == field), field)
        name = gathered.get(field, (contract.ENV_PREFIX + field.upper(), ""))[0]
        inside = "".join(f"{part}: " for part in fault["loc"][1:])
        unit = " (in seconds; the variable is in milliseconds)" if name in _MILLISECONDS.values() else ""
        lines.append(f"- {name}: {inside}{fault['msg'].removeprefix('Value error, ')}{unit}")
    return "\n".join(lines)


def is_set(environ: Mapping[str, str], field: str) -> bool:
    """Whether some variable sets this field, rightly or wrongly."""
    return field in _gathered(environ)


def exit_misconfigured(faults: Sequence[str]) -> NoReturn:
    """One readable message on stderr and exit code 78; faults: a variable and what would be right."""
    print("\n".join([_INVALID, *(f"- {fault}" for fault in faults)]), file=sys.stderr)
    raise SystemExit(EXIT_MISCONFIGURED)


def settings_or_exit(environ: Mapping[str, str], also: Sequence[str] = ()) -> Settings:
    """`load_settings`, or one readable message on stderr and exit code 78. also: what is told beside what is wrong."""
    try:
        return load_settings(environ)
    except ValidationError as error:
        print("\n".join([explain(error, environ), *(f"- {fault}" for fault in also)]), file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED) from None
