"""A key is rotated and revoked while agents use it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from e2e.report import CheckFailed
from e2e.site import Site

ROTATED: Final = "keys: no call fails while a key is rotated under live clients"
BOTH: Final = "keys: the old and the new token work during the grace"
REVOKED: Final = "keys: a revoked key is refused over REST and MCP at once"
ROWS: Final = (ROTATED, BOTH, REVOKED)
_KEY: Final = "laptop"
_Agent: TypeAlias = Callable[[Site, threading.Event, list[str]], None]


def tell(site: Site) -> None:
    """Issue, use, rotate, revoke."""
    report = site.report
    site.apply(
        {
            "apiVersion": "commonplace.dev/v1alpha1",
            "kind": "ApiKey",
            "metadata": {"name": _KEY},
            "spec": {"teamRef": {"name": "shop"}, "scopes": ["memories:read", "memories:write"]},
        }
    )
    site.wait(f"apikey/{_KEY}", "condition=Ready", seconds=60)
    old = site.secret(_KEY)["token"]
    stop = threading.Event()
    rest: list[str] = []
    mcp: list[str] = []
    clients = [
        threading.Thread(target=_noting, args=(_rest_client, site, stop, rest)),
        threading.Thread(target=_noting, args=(_mcp_client, site, stop, mcp)),
    ]
    with report.step("rotate a key under a REST and an MCP client"):
        with report.check(ROTATED) as row:
            for client in clients:
                client.start()
            try:
                _both_go_on(site, rest, mcp, 5)
                site.kubectl("annotate", "apikey", _KEY, "commonplace.dev/rotate=e2e", "--overwrite")
                site.until(lambda: site.secret(_KEY)["token"] != old, "the Secret kept its token", seconds=60)
                _both_go_on(site, rest, mcp, 10)
            finally:
                stop.set()
                for client in clients:
                    client.join()
            bad = [answer for answer in rest + mcp if answer != "ok"]
            if bad:
                raise CheckFailed(f"{len(bad)} of {len(rest + mcp)} calls failed: {bad[0]}")
            row.seen = f"{len(rest)} calls over REST and {len(mcp)} over MCP, 0 failed"
        with report.check(BOTH) as row:
            new = site.secret(_KEY)["token"]
            statuses = [site.call("GET", "/v1/connect", token=token).status_code for token in (old, new)]
            if statuses != [200, 200]:
                raise CheckFailed(f"HTTP {statuses}")
            row.seen = "HTTP 200 with both"
    with report.step("revoke it"), report.check(REVOKED) as row:
        site.patch(f"apikey/{_KEY}", {"spec": {"revoked": True}})
        site.wait(f"apikey/{_KEY}", "condition=Revoked", seconds=60)
        statuses = [site.call("GET", "/v1/connect", token=token).status_code for token in (old, new)]
        refused = asyncio.run(_mcp_status(site, new))
        if not set(statuses) <= {401, 403} or refused not in {401, 403}:
            raise CheckFailed(f"REST {statuses}, MCP {refused}")
        row.seen = f"REST HTTP {statuses}, MCP HTTP {refused}"


def _noting(client: _Agent, site: Site, stop: threading.Event, answers: list[str]) -> None:
    """Run a client in a thread; what ends it is an answer too, and not a good one."""
    try:
        client(site, stop, answers)
    except Exception as error:  # noqa: BLE001 - nobody would hear of it from a thread
        answers.append(f"{type(error).__name__}: {error}")


def _both_go_on(site: Site, rest: list[str], mcp: list[str], more: int) -> None:
    """Until each client has so many answers more, or a bad one, which the caller will find."""
    known = len(rest), len(mcp)
    site.until(
        lambda: {*rest, *mcp} - {"ok"} or (len(rest) >= known[0] + more and len(mcp) >= known[1] + more),
        lambda: f"{len(rest)} answers over REST and {len(mcp)} over MCP after {known}",
        seconds=60,
    )


def _rest_client(site: Site, stop: threading.Event, answers: list[str]) -> None:
    with httpx2.Client(timeout=20) as http:
        while not stop.wait(0.1):
            # As an agent does that reads its mounted Secret with every start.
            token = site.secret(_KEY)["token"]
            answer = http.get(f"{site.api_url}/v1/connect", headers={"Authorization": f"Bearer {token}"})
            answers.append("ok" if answer.status_code == 200 else f"REST {answer.status_code}")


def _mcp_client(site: Site, stop: threading.Event, answers: list[str]) -> None:
    async def run() -> None:
        # One client with the token it was started with: the grace period is for this one.
        secret = site.secret(_KEY)
        headers = {"Authorization": f"Bearer {secret['token']}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=20) as http,
            Client(streamable_http_client(secret["mcp-url"], http_client=http)) as client,
        ):
            while not stop.is_set():
                result = await client.call_tool("search", {"query": "signatures", "projectId": "checkout"})
                answers.append("MCP error" if result.is_error else "ok")
                await asyncio.sleep(0.1)

    asyncio.run(run())


async def _mcp_status(site: Site, token: str) -> int:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(timeout=20) as http:
        return (await http.post(f"{site.api_url}/v1/mcp", json=body, headers=headers)).status_code
