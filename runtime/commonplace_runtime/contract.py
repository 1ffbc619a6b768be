"""
What the operator may know of the runtime, and what both must spell alike.

Pure, standard library only: besides this the operator imports `scaling.py` and nothing else of this
package, and so a setting, a path or a token shape that one side misspells cannot exist.
"""

import hashlib
import json
import re
import shlex
import zlib
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias, get_args

VERSION: Final = "0.1.0"
"""Version of the one distribution; the operator's default image tag is its own version."""

SCHEMA_VERSION: Final = 20
"""Number of the newest migration; what `schema_version_v1()` answers on a current database."""

ENV_PREFIX: Final = "COMMONPLACE_"
ENV_DATABASE_URL: Final = "COMMONPLACE_DATABASE_URL"
ENV_ADMIN_DATABASE_URL: Final = "COMMONPLACE_ADMIN_DATABASE_URL"
ENV_RUNTIME_LOGIN_URL: Final = "COMMONPLACE_RUNTIME_LOGIN_URL"
ENV_OPERATOR_LOGIN_URL: Final = "COMMONPLACE_OPERATOR_LOGIN_URL"
ENV_REDIS_URL: Final = "COMMONPLACE_REDIS_URL"
ENV_HOST: Final = "COMMONPLACE_HOST"
ENV_PORT: Final = "COMMONPLACE_PORT"
ENV_METRICS_PORT: Final = "COMMONPLACE_METRICS_PORT"
ENV_PUBLIC_URL: Final = "COMMONPLACE_PUBLIC_URL"
ENV_PROVIDER: Final = "COMMONPLACE_PROVIDER"
ENV_MODEL: Final = "COMMONPLACE_MODEL"
ENV_PROVIDER_BASE_URL: Final = "COMMONPLACE_PROVIDER_BASE_URL"
ENV_PROVIDER_FALLBACKS: Final = "COMMONPLACE_PROVIDER_FALLBACKS"
ENV_ESCALATION_MODEL: Final = "COMMONPLACE_ESCALATION_MODEL"
ENV_MODEL_PRICES: Final = "COMMONPLACE_MODEL_PRICES"
ENV_OPENAI_BASE_URL: Final = "COMMONPLACE_OPENAI_BASE_URL"
ENV_ANTHROPIC_API_KEY: Final = "ANTHROPIC_API_KEY"
ENV_GEMINI_API_KEY: Final = "GEMINI_API_KEY"
ENV_OPENAI_API_KEY: Final = "OPENAI_API_KEY"
ENV_OPENROUTER_API_KEY: Final = "OPENROUTER_API_KEY"
ENV_CONCURRENCY: Final = "COMMONPLACE_WORKER_CONCURRENCY"
ENV_EMBEDDED_PASSWORD: Final = "COMMONPLACE_EMBEDDED_PASSWORD"  # noqa: S105 - its name

API_PORT: Final = 8787
METRICS_PORT: Final = 9787
MCP_PATH: Final = "/v1/mcp"
MCP_MEMORY_PATH: Final = "/v1/mcp/memory"
"""The tools that also write; `MCP_PATH` reads only, whatever the key may do."""
HEALTH_PATH: Final = "/healthz"
READINESS_PATH: Final = "/api/readiness"
METRICS_PATH: Final = "/metrics"
WORKER_READINESS_PATH: Final = "/readyz"
"""Of the worker, on its metrics port beside `METRICS_PATH` and `HEALTH_PATH`."""

ROLE_OWNER: Final = "commonplace_owner"
ROLE_RUNTIME: Final = "commonplace_runtime"
ROLE_OPERATOR: Final = "commonplace_operator"
ROLE_ADMIN: Final = "commonplace_admin"

SCOPES: Final = (
    "memories:read",
    "memories:write",
    "events:write",
    "sessions:write",
    "observations:read",
    "jobs:read",
    "audit:read",
    "memories:admin",
    "*",
)
"""Every scope that a key may carry; what each opens is in `domain/scopes.py`."""

DEFAULT_PROJECT: Final = "default"
"""Name of the project that every team has from the start."""

# SQLSTATEs raised by the operator's SQL functions; class CM is ours.
SQLSTATE_STALE_TERM: Final = "CM001"
"""An older leader's term: somebody else leads now, stop writing."""
SQLSTATE_STALE_GENERATION: Final = "CM002"
"""The row already carries a newer generation of the object."""
SQLSTATE_SLUG_CONFLICT: Final = "CM003"
"""The slug belongs to another team."""
SQLSTATE_NOT_FOUND: Final = "CM004"
"""The team, project or key row named by the call does not exist."""
SQLSTATE_LIMIT_REACHED: Final = "CM005"
"""A hard limit of the team forbids one row more."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN: Final = re.compile(r"cm_([0-9A-Za-z]{16})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")

TOKEN_ENTROPY_BYTES: Final = 44
"""Random bytes that `make_token` wants: 12 for the id, 32 for the secret."""


def _base62(number: int, width: int) -> str:
    digits: list[str] = []
    for _ in range(width):
        number, rest = divmod(number, 62)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), 6)


def make_token(entropy: bytes) -> str:
    """
    Shape `TOKEN_ENTROPY_BYTES` random bytes into `cm_<id>_<secret>_<checksum>`.

    The checksum is a CRC-32: it finds typing errors and proves nothing. Raises ValueError
    when `entropy` has another length.
    """
    if len(entropy) != TOKEN_ENTROPY_BYTES:
        raise ValueError(f"make_token needs {TOKEN_ENTROPY_BYTES} random bytes, not {len(entropy)}")
    key_id = _base62(int.from_bytes(entropy[:12], "big"), 16)
    secret = _base62(int.from_bytes(entropy[12:], "big"), 43)
    body = f"cm_{key_id}_{secret}"
    return f"{body}_{_checksum(body)}"


def token_id(token: str) -> str | None:
    """The public id inside a token of our own shape, or None for any other string."""
    match = _TOKEN.fullmatch(token)
    if match is None or _checksum(token[:-7]) != match.group(3):
        return None
    return match.group(1)


def hash_token(token: str) -> str:
    """SHA-256 of the whole token, hexadecimal: what the database holds, whatever the token's shape."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def mcp_url(public_url: str) -> str:
    """The address that a developer pastes into an MCP client."""
    return public_url.rstrip("/") + MCP_PATH


def connect_command(url: str, token: str) -> str:
    """The paste-ready line for Claude Code; `url` is `mcp_url(...)`."""
    return f'claude mcp add --transport http commonplace {shlex.quote(url)} --header "Authorization: Bearer {token}"'


MigrationOutcome: TypeAlias = Literal["migrated", "failed"]
MigrationReason: TypeAlias = Literal[
    "Migrated",
    "DatabaseRolesMissing",
    "MigrationFailed",
    "SchemaNewer",
    "DatabaseUnavailable",
    "DatabaseRefused",
]
REPORT_BYTES: Final = 4096
"""Longest report: what Kubernetes keeps of a container's termination message."""

_MESSAGE_CHARACTERS: Final = 600
_MORE: Final = "-- and more: run the command again after these"


@dataclass(frozen=True, kw_only=True)
class MigrationReport:
    """
    What one `commonplace migrate` came to, as it leaves it for whoever started it.

    reason: `Migrated`, or why not: `DatabaseRolesMissing` (an administrator must run `sql`), `SchemaNewer` (this
    program is older than the schema), `DatabaseUnavailable` (try again), `DatabaseRefused` (a connection string is
    wrong), `MigrationFailed` (all else). schema_version: of the database, None where it is not known. No passwords.
    """

    outcome: MigrationOutcome
    reason: MigrationReason
    message: str
    schema_version: int | None = None
    sql: str = ""

    def to_json(self) -> str:
        """One line of at most `REPORT_BYTES` bytes of ASCII; too long a message is cut, of `sql` whole lines go."""
        message = self.message
        if len(message) > _MESSAGE_CHARACTERS:
            message = message[: _MESSAGE_CHARACTERS - 1] + "…"
        lines, kept = self.sql.splitlines(), len(self.sql.splitlines())
        while len(text := self._encoded(message, lines, kept)) > REPORT_BYTES and kept:
            kept -= 1
        # A letter takes at most 12 bytes, so a quarter of the longest message fits whatever it says.
        return text if len(text) <= REPORT_BYTES else self._encoded(message[: _MESSAGE_CHARACTERS // 4], lines, 0)

    def _encoded(self, message: str, lines: list[str], kept: int) -> str:
        sql = self.sql if kept == len(lines) else "\n".join([*lines[:kept], _MORE])
        return json.dumps(asdict(self) | {"message": message, "sql": sql})

    @classmethod
    def from_json(cls, text: str) -> "MigrationReport | None":
        """What `to_json` wrote; None for anything else, such as the last lines of a log."""
        try:
            report = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        version = report.schema_version
        is_report = (
            report.outcome in get_args(MigrationOutcome)
            and report.reason in get_args(MigrationReason)
            and isinstance(report.message, str)
            and isinstance(report.sql, str)
            and (version is None or (isinstance(version, int) and not isinstance(version, bool)))
        )
        return report if is_report else None
