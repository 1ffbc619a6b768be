"""`commonplace doctor`: one line a check, what is wrong and what to do about it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import httpx2
from cyclopts import Parameter
from pydantic import ValidationError

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import DomainError
from commonplace_runtime.entrypoints.terminal import ENVIRONMENT, Json, Team, printable, with_admin_pool
from commonplace_runtime.ids import utc_now
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.services import tenants
from commonplace_runtime.services.readiness import check_administrator
from commonplace_runtime.settings import Settings, explain, load_settings
from commonplace_runtime.store import doctor as store
from commonplace_runtime.store.health import schema_version
from commonplace_runtime.store.pool import STORE_FAULTS, Pool
from commonplace_runtime.store.roles import Login, check_login

Status = Literal["ok", "warn", "fail"]
_PATIENCE: Final = 5.0
_KEY_MINUTES: Final = 5
_OLDEST_POSTGRES: Final = 160000
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what a host of the settings is dialled as
_REVISION: Final = "2025-06-18"
_LONGEST_TAIL: Final = 2000
"""Memories that may wait for the search index; beyond that a search reads the rows."""
_LONGEST_REBUILD_MINUTES: Final = 10


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found. todo: what to do about it, empty when it is ok."""

    name: str
    status: Status
    found: str
    todo: str = ""


class _Wrong(Exception):
    """A check that fails, or with `warn` could not be made or is worth a word."""

    def __init__(self, found: str, todo: str, status: Status = "fail") -> None:
        super().__init__(found)
        self.found = found
        self.todo = todo
        self.status: Status = status


def doctor(
    *,
    team: Annotated[
        Team | None, Parameter(help="Whose memories the MCP round trip asks for; default the first.")
    ] = None,
    call_provider: Annotated[bool, Parameter(help="Ask the model once, which costs a little.", negative="")] = False,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    Check settings, database, Redis, provider, addresses, and a round trip over MCP with a key that is revoked then.

    Needs the environment of the api, and COMMONPLACE_ADMIN_DATABASE_URL beside it. Exits with 1 when a check fails.
    """
    examination = _Examination(team=team, call_provider=call_provider, show=None if json_ else _show)
    asyncio.run(examination.run())
    if json_:
        print(json.dumps([asdict(check) for check in examination.checks]))
    raise SystemExit(1 if any(check.status == "fail" for check in examination.checks) else 0)


def _show(check: Check) -> None:
    print(f"{check.status:<4}  {check.name:<11}  {printable(check.found)}", flush=True)
    if check.todo:
        print(f"{'':<19}→ {printable(check.todo)}", flush=True)


class _Examination:
    def __init__(self, *, team: str | None, call_provider: bool, show: Callable[[Check], None] | None) -> None:
        self._team = team
        self._call_provider = call_provider
        self._show = show
        self.checks: list[Check] = []

    async def run(self) -> None:
        try:
            settings = load_settings(ENVIRONMENT.get())
        except ValidationError as error:
            faults = "; ".join(line.removeprefix("- ") for line in explain(error, ENVIRONMENT.get()).splitlines()[1:])
            self._note(
                Check(name="settings", status="fail", found=faults, todo="set the variables so, and start again")
            )
            return
        configure_logging("error", settings.log_format)
        await self._check("settings", lambda: _settings(settings))
        async with _administrator(settings) as (pool, fault):
            for name, look in (
                ("database", _database),
                ("roles", _roles),
                ("migrations", _migrations),
                ("tenancy", _tenancy),
                ("index", _index),
            ):
                await self._check(name, lambda look=look: look(pool, fault))  # type: ignore[misc]
            await self._check("log-in", lambda: _login(settings, pool))
            await self._check("redis", lambda: _redis(settings))
            await self._check("provider", lambda: _provider(settings, self._call_provider))
            await self._check("api", lambda: _api(settings))
            await self._check("public URL", lambda: _public_url(settings))
            await self._check("MCP", lambda: _mcp(settings, pool, fault, self._team))

    async def _check(self, name: str, look: Callable[[], Awaitable[str]]) -> None:
        try:
            async with asyncio.timeout(90):
                self._note(Check(name=name, status="ok", found=await look()))
        except _Wrong as wrong:
            self._note(Check(name=name, status=wrong.status, found=wrong.found, todo=wrong.todo))
        except DomainError as error:
            self._note(Check(name=name, status="fail", found=error.message, todo="put that right, and start again"))
        except TimeoutError:
            self._note(
                Check(name=name, status="fail", found="no answer within 90 s", todo="see whether it is overloaded")
            )
        except (*STORE_FAULTS, OSError) as error:
            self._note(Check(name=name, status="fail", found=str(error), todo="put that right, and start again"))

    def _note(self, check: Check) -> None:
        self.checks.append(check)
        if self._show is not None:
            self._show(check)


@asynccontextmanager
async def _administrator(settings: Settings) -> AsyncIterator[tuple[Pool | None, str]]:
    """An administrator's connection, or why there is none. Nothing is raised: the checks tell it."""
    if settings.admin_database_url is None:
        yield None, f"{contract.ENV_ADMIN_DATABASE_URL} is not set"
        return
    opened: asyncio.Future[Pool] = asyncio.get_running_loop().create_future()
    closing = asyncio.Event()

    async def hold(pool: Pool) -> None:
        opened.set_result(pool)
        await closing.wait()

    holding = asyncio.create_task(with_admin_pool(settings, _PATIENCE, hold))
    await asyncio.wait((opened, holding), return_when=asyncio.FIRST_COMPLETED)
    try:
        if opened.done():
            yield opened.result(), ""
        else:
            error = holding.exception()
            yield None, error.message if isinstance(error, DomainError) else str(error)
    finally:
        closing.set()
        await asyncio.gather(holding, return_exceptions=True)


async def _settings(settings: Settings) -> str:
    if settings.database_url is None:
        raise _Wrong(
            f"{contract.ENV_DATABASE_URL} is not set: api and worker would not start",
            "run this with the environment of the api",
            "warn",
        )
    return f"valid; provider {settings.provider}, port {settings.port}"


def _needs_pool(pool: Pool | None, status: Status = "warn") -> Pool:
    if pool is None:
        raise _Wrong("not looked at: no administrator's connection", "see `database` above", status)
    return pool


async def _database(pool: Pool | None, fault: str) -> str:
    if pool is None:
        raise _Wrong(fault, f"set {contract.ENV_ADMIN_DATABASE_URL} to a log-in in {contract.ROLE_ADMIN} that works")
    version, number = await store.server_version(pool)
    if number < _OLDEST_POSTGRES:
        raise _Wrong(f"PostgreSQL {version}", "upgrade to PostgreSQL 16 or newer")
    return f"PostgreSQL {version} answers"


async def _roles(pool: Pool | None, _fault: str) -> str:
    pool = _needs_pool(pool)
    if missing := await store.missing_roles(pool):
        raise _Wrong(
            f"missing, or passing row-level security: {', '.join(missing)}", "run `commonplace migrate --create-roles`"
        )
    return "the four group roles exist, and none passes row-level security"


async def _migrations(pool: Pool | None, _fault: str) -> str:
    pool = _needs_pool(pool)
    known = await schema_version(pool)
    if known < contract.SCHEMA_VERSION:
        raise _Wrong(
            f"the schema is at {known}, this program needs {contract.SCHEMA_VERSION}", "run `commonplace migrate`"
        )
    await check_administrator(pool)
    newer = ", newer than this program" if known > contract.SCHEMA_VERSION else ""
    return f"the schema is at {known}{newer}"


async def _tenancy(pool: Pool | None, _fault: str) -> str:
    pool = _needs_pool(pool)
    if open_tables := await store.unforced_tables(pool):
        todo = "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, and find out who changed it"
        raise _Wrong(f"row-level security is not forced on {', '.join(open_tables)}", todo)
    return "row-level security is forced on every table of tenants"


async def _index(pool: Pool | None, _fault: str) -> str:
    pool = _needs_pool(pool)
    if await schema_version(pool) < contract.SCHEMA_VERSION:
        raise _Wrong("not looked at: the schema is an older one", "see `migrations` above", "warn")
    if lost := await store.index_losses(pool):
        todo = "the database's machine may hash words otherwise since a restore: run `commonplace reindex --all`"
        raise _Wrong(f"memories that searches do not find by all their words, in {_some(lost)}", todo)
    rebuilds = await store.index_rebuilds(pool)
    late = [f"{project} for {seconds // 60} min" for project, seconds in rebuilds]
    if rebuilds and rebuilds[0][1] > 60 * _LONGEST_REBUILD_MINUTES:
        todo = "see that a worker or an api runs, and its log for `index_`; searches are slow until it is done"
        raise _Wrong(f"being rebuilt: {_some(late)}", todo, "warn")
    tails = [f"{project} {waiting}" for project, waiting in await store.index_tails(pool, more_than=_LONGEST_TAIL)]
    if tails and not rebuilds:
        todo = "see that a worker or an api runs, and its log for `index_`; searches are slow until they are in"
        raise _Wrong(f"memories wait for the search index: {_some(tails)}", todo, "warn")
    return (
        f"being rebuilt: {_some(late)}" if rebuilds else "every search index is kept and has the words that it should"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


async def _login(settings: Settings, pool: Pool | None) -> str:
    if settings.database_url is None:
        raise _Wrong(f"{contract.ENV_DATABASE_URL} is not set", "run this with the environment of the api", "warn")
    pool = _needs_pool(pool)
    url = settings.database_url.get_secret_value()
    where = {"variable": contract.ENV_DATABASE_URL, "secret_key": "uri"}
    login = Login(url=url, group=contract.ROLE_RUNTIME, **where)
    await check_login(login, schema=await schema_version(pool), connect_timeout=_PATIENCE)
    return f"{login.name or 'it'} reaches the same database, serves and does no more"


async def _redis(settings: Settings) -> str:
    if settings.redis_url is None:
        return f"not configured: workers look for work every {settings.worker_poll_seconds:g} s"
    from commonplace_runtime.entrypoints.doorbell import TaskiqDoorbell

    bell = TaskiqDoorbell(settings.redis_url.get_secret_value())
    try:
        if not await bell.answers():
            todo = f"check {contract.ENV_REDIS_URL}; until then workers look every {settings.worker_poll_seconds:g} s"
            raise _Wrong("does not answer", todo)
    finally:
        await bell.aclose()
    return "answers"


async def _provider(settings: Settings, call: bool) -> str:
    from commonplace_runtime.domain.observations import SourceEvent
    from commonplace_runtime.llm.build import build_generator, provider_faults
    from commonplace_runtime.llm.ports import Batch, GenerationFailed

    if faults := provider_faults(settings):
        raise _Wrong("; ".join(faults), "set it for api and worker")
    if settings.provider == "extractive":
        return "extractive: rules, no model and no key"
    if not call:
        return f"{settings.provider} is configured; not called (--call-provider does, for a fraction of a cent)"
    event = SourceEvent(
        event_type="tool_use",
        source_adapter="api",
        platform_source=None,
        occurred_at=utc_now(),
        payload={"tool_name": "Bash", "tool_input": {"command": "commonplace doctor"}, "tool_response": "all is well"},
    )
    generator = build_generator(settings)
    try:
        made = await generator.generate(Batch(project_name="doctor", events=[event]))
    except GenerationFailed as error:
        raise _Wrong(str(error), "check the provider's key, model and address") from error
    finally:
        await generator.aclose()
    return f"{made.provider} answered with {made.model}: {made.input_tokens} tokens in, {made.output_tokens} out"


def _api_url(settings: Settings) -> str:
    host = _ANY.get(settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host)
    return f"http://{host}:{settings.port}"


async def _get(url: str, what: str) -> dict[str, Any]:
    try:
        async with httpx2.AsyncClient(timeout=_PATIENCE, follow_redirects=False) as client:
            answer = await client.get(url)
            body = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _Wrong(f"{url} does not answer: {type(error).__name__} {error}".strip(), what) from error
    except ValueError as error:
        raise _Wrong(f"{url} answers {answer.status_code}, and not as Commonplace does", what) from error
    if answer.status_code != 200 or not isinstance(body, dict):
        told = body.get("message", "") if isinstance(body, dict) else ""
        raise _Wrong(f"{url} answers {answer.status_code} {told}".strip(), what)
    return body


async def _api(settings: Settings) -> str:
    if settings.port == 0:
        raise _Wrong("listens on a free port that is not known here", f"set {contract.ENV_PORT}", "warn")
    url = _api_url(settings)
    todo = f"start `commonplace api`, or set {contract.ENV_HOST} and {contract.ENV_PORT} as it has them"
    await _get(url + contract.HEALTH_PATH, todo)
    await _get(url + contract.READINESS_PATH, "see `database` and `migrations` above")
    return f"{url} is ready"


async def _public_url(settings: Settings) -> str:
    url = settings.public_url
    if not url:
        todo = f"set {contract.ENV_PUBLIC_URL} to what clients dial"
        raise _Wrong("not set: each client is told the address that it used", todo, "warn")
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise _Wrong(
            f"{printable(url)} is no address", f"set {contract.ENV_PUBLIC_URL} to https://host or https://host/path"
        )
    await _get(url + contract.HEALTH_PATH, "see to DNS, certificate and Ingress; from here it may be closed on purpose")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise _Wrong(f"{url} answers, and carries keys in clear", "put TLS in front of it", "warn")
    return f"{url} answers"


async def _mcp(settings: Settings, pool: Pool | None, _fault: str, team: str | None) -> str:
    pool = _needs_pool(pool)
    base = settings.public_url or (_api_url(settings) if settings.port else "")
    if not base:
        raise _Wrong("not tried: no address is known", f"set {contract.ENV_PUBLIC_URL}", "warn")
    if team is None:
        living = [row for row in await tenants.list_teams(pool) if row["detached_at"] is None]
        if not living:
            raise _Wrong("not tried: there is no team", "make one: `commonplace teams create NAME`", "warn")
        team = str(living[0]["id"])
    key = await tenants.create_key(
        pool,
        team=team,
        project=contract.DEFAULT_PROJECT,
        scopes=["memories:read"],
        expires_at=utc_now() + timedelta(minutes=_KEY_MINUTES),
        actor="system:doctor",
        name=f"doctor-{os.getpid()}",
    )
    try:
        shown = await _round_trip(base + contract.MCP_PATH, key.token)
    finally:
        await tenants.revoke_key(pool, key.id)
    return f"{shown}; its key is revoked"


async def _round_trip(url: str, token: str) -> str:
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": _REVISION,
    }
    about = {"name": "commonplace-doctor", "version": contract.VERSION}
    calls: Sequence[tuple[str, dict[str, Any]]] = (
        ("initialize", {"protocolVersion": _REVISION, "capabilities": {}, "clientInfo": about}),
        ("tools/list", {}),
        ("tools/call", {"name": "recent", "arguments": {"limit": 1}}),
    )
    results: list[dict[str, Any]] = []
    todo = "see the api's log for `request_answered` of this moment"
    async with httpx2.AsyncClient(timeout=20, headers=headers) as client:
        for number, (method, params) in enumerate(calls, start=1):
            try:
                answer = await client.post(
                    url, json={"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                )
                body = answer.json()
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
                raise _Wrong(f"{url} {method}: {type(error).__name__} {error}".strip(), todo) from error
            if answer.status_code != 200 or not isinstance(body, dict) or "result" not in body:
                raise _Wrong(f"{url} {method}: {answer.status_code} {json.dumps(body)[:200]}", todo)
            results.append(body["result"])
    if results[2].get("isError"):
        raise _Wrong(f"recent: {json.dumps(results[2].get('content'))[:200]}", todo)
    names = ", ".join(tool["name"] for tool in results[1]["tools"])
    return f"{url} initializes, lists {names}, and answers recent"
