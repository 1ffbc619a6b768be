"""
Probes and what they say, and how memory is searched. None needs a key; none tells more than whether we work and how
much waits.

/api/admin/*, which claude-mem's server opens to whoever comes from loopback, is left out on purpose: behind a proxy on
the same host that is everybody. /api/health reports our version. A client that takes this address for its own worker's
must be kept from reading it as its plugin's: the proxy that adds the key leaves `version` out.
"""

import os
import sys
from typing import Any, Final, Literal, NotRequired

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime import contract
from commonplace_runtime.domain import instructions
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.wire import LANE_NAMES, RUNTIME, Lane
from commonplace_runtime.entrypoints.doorbell import STREAM
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.state import ApiState, state_of
from commonplace_runtime.services.readiness import readiness

_ENGINE: Final = {"engine": "bullmq", "implementation": "taskiq+postgres"}
"""The first is the wire's word for "wakes its workers through Redis", the second is what does it."""
_REDIS: Final = {"mode": "external", "host": None, "port": None, "prefix": STREAM}
"""These routes ask for no key, so they do not tell where Redis is."""


class VersionAnswer(TypedDict):
    """Which version serves."""

    version: str


class InstructionsQuery(TypedDict):
    """What to explain; everything where nothing is named. A tool goes before a topic."""

    topic: NotRequired[Literal["workflow", "search_params", "examples", "all"]]
    operation: NotRequired[Literal["search", "timeline", "get_observations"]]


class TextPart(TypedDict):
    """A text for a model."""

    type: Literal["text"]
    text: str


class InstructionsAnswer(TypedDict):
    """What an MCP tool answers."""

    content: list[TextPart]


class Liveness(TypedDict):
    """The process is alive."""

    status: str
    runtime: str


class Readiness(TypedDict):
    """`ready`, or `initializing` with the reason in `message`."""

    status: str
    mcpReady: NotRequired[bool]
    message: NotRequired[str]


class Dependencies(TypedDict):
    """What we need and whether it answers: `ok`, or what is wrong."""

    degraded: bool
    statuses: dict[str, str]


class Queue(TypedDict):
    """How workers are woken, and how much waits."""

    engine: str
    implementation: str
    redis: dict[str, Json]
    lanes: list[Lane]


class Health(TypedDict):
    """For people and for claude-mem's client; `uptime` in seconds, `queue` where Redis is configured."""

    status: str
    runtime: str
    implementation: str
    version: str
    workerPath: str
    uptime: float
    managed: bool
    hasIpc: bool
    platform: str
    pid: int
    initialized: bool
    mcpReady: bool
    ai: dict[str, Json]
    dependencies: Dependencies
    rateLimits: dict[str, Json]
    queue: NotRequired[Queue]


class SchemaState(TypedDict):
    """The database as this server found it."""

    initialized: bool
    schemaVersion: int | None


class Info(TypedDict):
    """What this server is."""

    name: str
    version: str
    runtime: str
    authMode: str
    postgres: SchemaState
    boundaries: dict[str, Json]
    queueLanes: list[Lane]


async def get_healthz(_request: Request) -> Response:
    """The process is alive. It asks nobody: a database that is away is no reason to restart us."""
    return json_response({"status": "ok", "runtime": RUNTIME})


async def get_readiness(request: Request) -> Response:
    """Whether requests can be served: the database answers and its schema is new enough."""
    found = await readiness(state_of(request).pool)
    if found.problem is None:
        return json_response({"status": "ready", "mcpReady": True})
    return json_response({"status": "initializing", "message": found.problem}, 503)


async def get_health(request: Request) -> Response:
    """The same for people and for claude-mem's client, with what we are; `degraded` when Redis is away, too."""
    state = state_of(request)
    found = await readiness(state.pool)
    statuses = {"postgres": found.problem or "ok"}
    body: dict[str, Any] = {
        "status": "ok",
        "runtime": RUNTIME,
        "implementation": "commonplace",
        "version": contract.VERSION,
        "workerPath": "",
        "uptime": round((state.now() - state.started_at).total_seconds(), 3),
        "managed": False,
        "hasIpc": False,
        "platform": sys.platform,
        "pid": os.getpid(),
        "initialized": found.problem is None,
        "mcpReady": True,
        "ai": {"provider": "disabled", "authMethod": "api-key", "lastInteraction": None},
        "dependencies": {"degraded": False, "statuses": statuses},
        "rateLimits": {},
    }
    if state.has_doorbell:
        # Without Redis a job waits for the next poll: worth an alert, which is why readiness does not ask for it.
        statuses["redis"] = "ok" if await state.doorbell.answers() else "unavailable"
        lanes = await state.lanes.look(state.pool)
        body["queue"] = {**_ENGINE, "redis": {"status": statuses["redis"], **_REDIS}, "lanes": lanes}
    if all(status == "ok" for status in statuses.values()):
        return json_response(body)
    body["status"] = "degraded"
    body["dependencies"]["degraded"] = True
    return json_response(body, 503)


async def get_info(request: Request) -> Response:
    """What this server is."""
    state = state_of(request)
    found = await readiness(state.pool)
    return json_response(
        {
            "name": "commonplace",
            "version": contract.VERSION,
            "runtime": RUNTIME,
            "authMode": "api-key",
            "postgres": {"initialized": found.problem is None, "schemaVersion": found.schema},
            "boundaries": {"queueManager": _queue(state), "generationWorkerManager": _generation()},
            "queueLanes": await state.lanes.look(state.pool) if state.has_doorbell else [],
        }
    )


async def get_version(_request: Request) -> Response:
    """Our version."""
    return json_response({"version": contract.VERSION})


async def get_instructions(request: Request) -> Response:
    """How to search memory, for an agent."""
    operation, topic = request.query_params.get("operation"), request.query_params.get("topic")
    text = instructions.OPERATIONS.get(operation) if operation else instructions.TOPICS.get(topic or "all")
    if text is None:
        return json_response({"error": "Invalid topic"}, 400)
    return json_response({"content": [{"type": "text", "text": text}]})


def _queue(state: ApiState) -> dict[str, Any]:
    if state.has_doorbell:
        lanes = [{"kind": kind, "name": name} for kind, name in LANE_NAMES.items()]
        details: dict[str, Any] = {**_ENGINE, **_REDIS, "lanes": lanes}
        return {"status": "active", "reason": "jobs are rows in Postgres, Redis wakes the workers", "details": details}
    return {"status": "disabled", "reason": "no Redis is configured: workers find their jobs by polling Postgres"}


def _generation() -> dict[str, Any]:
    return {"status": "disabled", "reason": "memories are made by worker processes, not by the api"}


OPERATIONS: Final = (
    Operation(method="GET", path="/v1/info", handler=get_info, id="getInfo", tag="Health", answer=Info),
    Operation(
        method="GET", path=contract.HEALTH_PATH, handler=get_healthz, id="getLiveness", tag="Health", answer=Liveness
    ),
    Operation(
        method="GET", path="/api/health", handler=get_health, id="getHealth", tag="Health", answer=Health, also=(503,)
    ),
    Operation(
        method="GET",
        path=contract.READINESS_PATH,
        handler=get_readiness,
        id="getReadiness",
        tag="Health",
        answer=Readiness,
        also=(503,),
    ),
    Operation(
        method="GET", path="/api/version", handler=get_version, id="getVersion", tag="Health", answer=VersionAnswer
    ),
    Operation(
        method="GET",
        path="/api/instructions",
        handler=get_instructions,
        id="getInstructions",
        tag="Health",
        query=InstructionsQuery,
        answer=InstructionsAnswer,
        fails=(400,),
    ),
)
