"""
How much memory one process of each kind takes, at rest and at work: the figures behind the sizing table of
`docs/howto/production.md`.

    .venv/bin/python -m benchmarks.memory            about three minutes; builds the control plane the first time
    .venv/bin/python -m benchmarks.memory --only api

Everything is real and on this machine, see `benchmarks/worker.py`; the operator has a real Kubernetes API. Shown is
the resident set (RSS) at rest after its start, and the greatest until the end of the work (VmHWM), in MiB. A pod's
memory as the kubelet counts it has the same plus what the process wrote to /tmp, and shares no page with other pods.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import httpx2
import psutil

from benchmarks.worker import COMMAND, Stage, _key, _pool, _until_ready, fake_provider, fresh_database, process, queue
from commonplace_runtime.embedded import EmbeddedPostgres, EmbeddedRedis, free_port
from commonplace_runtime.services.tenants import ensure_login
from e2e.cluster.control_plane import ControlPlane

CRDS: Final = Path(__file__).parents[1] / "crds"
REST_SECONDS: Final = 10
CLIENTS: Final = 8
BIG_EVENT: Final = 512 * 1024
READY: Final = r'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'


def resident(child: psutil.Process) -> tuple[float, float]:
    """RSS now, and the greatest so far, in MiB."""
    text = Path(f"/proc/{child.pid}/status").read_text()
    now, most = (int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def show(name: str, child: psutil.Process, work: str) -> None:
    now, most = resident(child)
    print(f"  {name:<34}{now:>8.0f}{most:>8.0f}   {work}", flush=True)


async def until(holds: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        if time.monotonic() > deadline:
            raise SystemExit("it took too long")
        await asyncio.sleep(0.2)


async def api(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
    async with fresh_database(postgres, redis, "bench_memory") as stage:
        token, port = await _key(stage), free_port()
        headers = {"Authorization": f"Bearer {token}"}
        with contextlib.ExitStack() as stack:
            child = stack.enter_context(process([*COMMAND, "api"], stage.environ(None, COMMONPLACE_PORT=str(port))))
            stack.enter_context(process([*COMMAND, "worker"], stage.environ(None)))
            base_url = f"http://127.0.0.1:{port}"
            with httpx2.Client(base_url=base_url, headers=headers, timeout=60) as client:
                await _until_ready(client)
            await asyncio.sleep(REST_SECONDS)
            show("api", child, "at rest")
            async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=60) as client:
                await _batches(client, rounds=10, size=50, text="We decided that it listens on port 5433. " * 20)
                show("api", child, f"{CLIENTS} clients: 4,000 events in batches of 50, a search after each")
                await _batches(client, rounds=2, size=8, text="x" * BIG_EVENT)
                show("api", child, f"{CLIENTS} clients: batches of 4 MiB")


async def _batches(client: httpx2.AsyncClient, *, rounds: int, size: int, text: str) -> None:
    async def one(number: int) -> None:
        for turn in range(rounds):
            events = [
                {
                    "sourceType": "hook",
                    "eventType": "assistant_message",
                    "sourceEventId": f"{len(text)}-{number}-{turn}-{place}",
                    "contentSessionId": f"{number}-{turn}",
                    "payload": {"last_assistant_message": text},
                }
                for place in range(size)
            ]
            answer = await client.post("/v1/events/batch", json=events)
            assert answer.status_code == 201, answer.text[:300]
            found = await client.post("/v1/search", json={"query": "which port", "limit": 50})
            assert found.status_code == 200, found.text[:300]

    async with asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            tasks.create_task(one(number))


async def worker(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
    for concurrency in (8, 16, 64):
        async with fresh_database(postgres, redis, "bench_memory") as stage, await _pool(stage.admin_url) as pool:
            with fake_provider(0.5) as url:
                environ = stage.environ(url, COMMONPLACE_WORKER_CONCURRENCY=str(concurrency))
                with process([*COMMAND, "worker"], environ) as child:
                    await asyncio.sleep(REST_SECONDS)
                    show(f"worker, concurrency {concurrency}", child, "at rest")
                    empty = await pool.fetchval(_BYTES)
                    await queue(pool, 20 * concurrency, 5)
                    while await pool.fetchval(_OPEN):  # noqa: ASYNC110 - another process works
                        await asyncio.sleep(0.2)
                    work = f"{20 * concurrency} sessions of 5 events, a model at 500 ms"
                    show(f"worker, concurrency {concurrency}", child, work)
                    grown = await pool.fetchval(_BYTES) - empty
                    print(f"    the database grew by {grown / (100 * concurrency) / 1024:.1f} KiB an event", flush=True)


_BYTES = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relnamespace = 'commonplace'::regnamespace AND relkind = 'r'
"""
_OPEN = "SELECT EXISTS (SELECT FROM commonplace.jobs WHERE status IN ('queued', 'processing'))"


async def operator(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
    async with fresh_database(postgres, redis, "bench_memory") as stage, await _pool(stage.admin_url) as pool:
        await ensure_login(pool, "bench_operator", "commonplace_operator")
        with ControlPlane.start(crds=CRDS, report=lambda _: None) as plane:

            def kubectl(*words: str, lines: Sequence[dict[str, object]] = ()) -> str:
                text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(lines)})
                command = [str(plane.kubectl), "--namespace", "default", *words]
                done = subprocess.run(  # noqa: PLW1510 - the next line checks
                    command, input=text, env=dict(plane.environment()), capture_output=True, text=True, timeout=300
                )
                assert done.returncode == 0, done.stderr[:500]
                return done.stdout

            port = free_port()
            environ = {
                **plane.environment(),
                "KUBECONFIG": str(plane.kubeconfig),
                "COMMONPLACE_OPERATOR_NAMESPACE": "default",
                "COMMONPLACE_OPERATOR_PORT": str(port),
                "COMMONPLACE_OPERATOR_LOG_LEVEL": "error",
            }
            log = Path(os.devnull).open("w")  # noqa: SIM115, ASYNC230 - until the process ends
            with log, process([sys.executable, "-m", "commonplace_operator"], environ) as child:
                await asyncio.sleep(REST_SECONDS)
                show("operator", child, "at rest")
                kubectl("apply", "-f", "-", lines=_objects(stage, keys=0))
                for keys in (100, 500):
                    kubectl("apply", "-f", "-", lines=_objects(stage, keys=keys))
                    await until(lambda keys=keys: kubectl("get", "apikeys", "-o", READY).count("True") >= keys)
                    show("operator", child, f"{keys} ApiKeys made and Ready")


def _objects(stage: Stage, *, keys: int) -> list[dict[str, object]]:
    def ours(kind: str, name: str, spec: dict[str, object]) -> dict[str, object]:
        return {"apiVersion": "commonplace.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}

    uri = stage.postgres.url(user="bench_operator", database=stage.database)
    runtime = {
        "management": "External",
        "publicUrl": "http://127.0.0.1:8787",
        "database": {"operatorSecretRef": {"name": "db"}},
    }
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"uri": uri}},
        ours("MemoryRuntime", "main", runtime),
        ours("MemoryTeam", "shop", {"runtimeRef": {"name": "main"}}),
        *(ours("ApiKey", f"key-{n}", {"teamRef": {"name": "shop"}, "scopes": ["memories:read"]}) for n in range(keys)),
    ]


QUESTIONS = {"api": api, "worker": worker, "operator": operator}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(QUESTIONS), help="one question")
    chosen = parser.parse_args()
    print(f"  {'MiB':<34}{'RSS':>8}{'peak':>8}")
    with EmbeddedPostgres(settings={"max_connections": "200", "fsync": "off"}) as postgres, EmbeddedRedis() as redis:
        for name, question in QUESTIONS.items():
            if chosen.only in (None, name):
                await question(postgres, redis)


if __name__ == "__main__":
    asyncio.run(main())
