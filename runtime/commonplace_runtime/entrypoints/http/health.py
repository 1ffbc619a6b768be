"""Probes and what they say. None needs a key; none tells more than whether we work and how much waits."""

import os
import sys
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from commonplace_runtime import contract
from commonplace_runtime.domain.wire import LANE_NAMES, RUNTIME
from commonplace_runtime.entrypoints.doorbell import STREAM
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.state import ApiState, state_of
from commonplace_runtime.services.readiness import readiness

_ENGINE: Final = {"engine": "bullmq", "implementation": "taskiq+postgres"}
"""The first is the wire's word for "wakes its workers through Redis", the second is what does it."""
_REDIS: Final = {"mode": "external", "host": None, "port": None, "prefix": STREAM}
"""These routes ask for no key, so they do not tell where Redis is."""


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
    """The same for people and for claude-mem's client, with what we are."""
    state = state_of(request)
    found = await readiness(state.pool)
    body: dict[str, Any] = {
        "status": "ok" if found.problem is None else "degraded",
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
        "dependencies": {
            "degraded": found.problem is not None,
            "statuses": {"postgres": found.problem or "ok"},
        },
        "rateLimits": {},
    }
    if state.has_doorbell:
        redis_status = "ok" if await state.doorbell.answers() else "unavailable"
        # Without Redis a job waits for the next poll: worth telling, and no reason to be taken out of service.
        body["dependencies"]["statuses"]["redis"] = redis_status
        lanes = await state.lanes.look(state.pool)
        body["queue"] = {**_ENGINE, "redis": {"status": redis_status, **_REDIS}, "lanes": lanes}
    return json_response(body, 200 if found.problem is None else 503)


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


def _queue(state: ApiState) -> dict[str, Any]:
    if state.has_doorbell:
        lanes = [{"kind": kind, "name": name} for kind, name in LANE_NAMES.items()]
        details: dict[str, Any] = {**_ENGINE, **_REDIS, "lanes": lanes}
        return {"status": "active", "reason": "jobs are rows in Postgres, Redis wakes the workers", "details": details}
    return {"status": "disabled", "reason": "no Redis is configured: workers find their jobs by polling Postgres"}


def _generation() -> dict[str, Any]:
    return {"status": "disabled", "reason": "memories are made by worker processes, not by the api"}


OPERATIONS: Final = (
    Operation(method="GET", path="/v1/info", handler=get_info, id="getInfo", tag="Health"),
    Operation(method="GET", path=contract.HEALTH_PATH, handler=get_healthz, id="getLiveness", tag="Health"),
    Operation(method="GET", path="/api/health", handler=get_health, id="getHealth", tag="Health"),
    Operation(method="GET", path=contract.READINESS_PATH, handler=get_readiness, id="getReadiness", tag="Health"),
)
