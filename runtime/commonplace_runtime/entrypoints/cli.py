"""The command line: every verb converts its arguments, calls one service and prints what came back."""

import json
import os
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID

import cyclopts
from cyclopts import Parameter

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict, DomainError
from commonplace_runtime.entrypoints.cli_doctor import doctor
from commonplace_runtime.entrypoints.cli_embedded import embedded
from commonplace_runtime.entrypoints.cli_jobs import jobs, usage
from commonplace_runtime.entrypoints.cli_members import audit, members
from commonplace_runtime.entrypoints.cli_migrate import migrate
from commonplace_runtime.entrypoints.cli_reindex import reindex
from commonplace_runtime.entrypoints.cli_transfer import EXIT_INTERRUPTED, export, import_
from commonplace_runtime.entrypoints.terminal import (
    ENVIRONMENT,
    Json,
    Team,
    as_admin,
    print_rows,
    read_moment,
    settings_with,
)
from commonplace_runtime.observability import Probe, serve_metrics
from commonplace_runtime.services import tenants
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import STORE_FAULTS, Refused

EXIT_REFUSED = 1

app = cyclopts.App(
    name="commonplace",
    help="Memory that a team's people and coding agents share.",
    version=contract.VERSION,
    help_format="plaintext",
)
teams = cyclopts.App(name="teams", help="Teams: the tenants.")
projects = cyclopts.App(name="projects", help="Projects of a team.")
keys = cyclopts.App(name="keys", help="API keys of a team.")
for group in (teams, projects, members, keys, jobs, embedded):
    app.command(group)
app.command(usage)
app.command(audit)
app.command(doctor)
app.command(export)
app.command(import_, name="import")
app.command(reindex)
app.command(migrate)


def run() -> None:
    """Entry point of the console script. Whatever an administrator can put right becomes one line and exit code 1."""
    try:
        for word in sys.argv[1:]:
            word.encode()
        ENVIRONMENT.set(os.environ)
        app()
    except UnicodeEncodeError:
        _refuse("an argument is not UTF-8: check the terminal's encoding")
    except Refused as error:
        _refuse(f"{error.message}: check {contract.ENV_DATABASE_URL} and {contract.ENV_ADMIN_DATABASE_URL}")
    except DomainError as error:
        _refuse(error.message)
    except STORE_FAULTS as error:
        _refuse(f"Postgres objects: {error}")
    except OSError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        print("commonplace: interrupted", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None


def _refuse(message: str) -> NoReturn:
    print(f"commonplace: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(EXIT_REFUSED)


@app.command
def api() -> None:
    """Serve the HTTP API and MCP until SIGTERM."""
    settings = settings_with("database_url")
    from commonplace_runtime.entrypoints.http.serve import serve_api  # the other verbs start faster without FastAPI

    _serve_metrics(settings)
    _run_loop(serve_api(settings))


@app.command
def worker() -> None:
    """Turn events into memories until SIGTERM."""
    settings = settings_with("database_url")
    from commonplace_runtime.entrypoints.worker import run_worker
    from commonplace_runtime.entrypoints.worker_health import WorkerHealth

    health = WorkerHealth()
    _serve_metrics(settings, health.probes)
    _run_loop(run_worker(settings, health=health))


def _serve_metrics(settings: Settings, probes: Mapping[str, Probe] | None = None) -> None:
    host, port = settings.metrics_host, settings.metrics_port
    try:
        serve_metrics(host, port, probes)
    except OSError as error:
        message = f"cannot serve metrics on {host} port {port}: {error.strerror}: set {contract.ENV_METRICS_PORT}"
        raise Conflict(message) from error


def _run_loop(work: Coroutine[Any, Any, None]) -> None:
    import uvloop

    uvloop.run(work)


@app.command
def dev(
    *,
    data_dir: Path | None = None,
    port: int = contract.API_PORT,
    worker: Annotated[bool, Parameter(help="Run a worker too.")] = True,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    Run everything on this machine: embedded Postgres and Redis, api, worker. No Kubernetes and no model key.

    data_dir: where memories are kept; default $XDG_DATA_HOME/commonplace.
    port: of the api; 0 takes a free one.
    """
    from commonplace_runtime.entrypoints.dev import run_dev  # embedded servers are an extra

    raise SystemExit(run_dev(os.environ, data_dir=data_dir, port=port, with_worker=worker, as_json=json_))


@teams.command(name="create")
def create_team(name: str, *, json_: Annotated[Json, Parameter(name="--json")] = True) -> None:
    """Create a team with its project `default`; prints {"id", "slug"}."""
    team = as_admin(lambda pool: tenants.create_team(pool, name))
    print(json.dumps({"id": str(team["id"]), "slug": team["slug"], "name": team["name"]}))


@teams.command(name="list")
def list_teams(*, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """List every team."""
    columns = {"id": "id", "slug": "slug", "name": "name", "managed": "managed", "createdAt": "created_at"}
    print_rows(as_admin(tenants.list_teams), columns, json_)


@projects.command(name="create")
def create_project(name: str, *, team: Team, json_: Annotated[Json, Parameter(name="--json")] = True) -> None:
    """Create a project of a team; prints {"id", "teamId", "name"}."""
    row = as_admin(lambda pool: tenants.create_project(pool, team, name))
    print(json.dumps({"id": str(row["id"]), "teamId": str(row["team_id"]), "name": row["name"]}))


@projects.command(name="list")
def list_projects(*, team: Team | None = None, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """List the projects of a team, or of all."""
    columns = {"id": "id", "teamId": "team_id", "name": "name", "createdAt": "created_at"}
    print_rows(as_admin(lambda pool: tenants.list_projects(pool, team)), columns, json_)


@keys.command(name="create")
def create_key(
    *,
    team: Team,
    scope: list[str],
    project: str | None = None,
    expires_at: str | None = None,
    actor: str | None = None,
    name: str | None = None,
    json_: Annotated[Json, Parameter(name="--json")] = True,
) -> None:
    """
    Create a key and print it, this once: {"id", "key", "teamId", "projectId"}.

    scope: comma separated, or given several times.
    project: its id or name; left out, the key reaches every project of the team.
    expires_at: ISO 8601 with an offset, for example 2027-01-31T00:00:00Z.
    actor: who writes with it: human:…, system:… or agent:….
    """
    scopes = [part.strip() for item in scope for part in item.split(",") if part.strip()]
    issued = as_admin(
        lambda pool: tenants.create_key(
            pool,
            team=team,
            project=project,
            scopes=scopes,
            expires_at=read_moment(expires_at),
            actor=actor,
            name=name,
        )
    )
    project_id = str(issued.project_id) if issued.project_id else None
    print(
        json.dumps({"id": str(issued.id), "key": issued.token, "teamId": str(issued.team_id), "projectId": project_id})
    )


@keys.command(name="list")
def list_keys(*, team: Team | None = None, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """List the keys of a team, or of all; tokens are never shown."""
    columns = {
        "id": "id",
        "teamId": "team_id",
        "projectId": "project_id",
        "name": "name",
        "actor": "actor",
        "scopes": "scopes",
        "state": "state",
        "expiresAt": "expires_at",
        "lastUsedAt": "last_used_at",
        "managed": "managed",
    }
    print_rows(as_admin(lambda pool: tenants.list_keys(pool, team)), columns, json_)


@keys.command(name="revoke")
def revoke_key(key: UUID, *, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """Refuse a key from its next request on; prints {"id", "status": "revoked"}."""
    as_admin(lambda pool: tenants.revoke_key(pool, key))
    print(json.dumps({"id": str(key), "status": "revoked"}))
