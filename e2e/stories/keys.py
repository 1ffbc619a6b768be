"""A key is rotated and revoked while agents use it."""

import asyncio
import threading
from typing import Final

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
    answers: list[str] = []
    clients = [
        threading.Thread(target=_rest_client, args=(site, stop, answers)),
        threading.Thread(target=_mcp_client, args=(site, stop, answers)),
    ]
    with report.step("rotate a key under a REST and an MCP client"):
        with report.check(ROTATED) as row:
            for client in clients:
                client.start()
            try:
                site.until(lambda: len(answers) >= 10, "the clients got no answers", seconds=60)
                site.kubectl("annotate", "apikey", _KEY, "commonplace.dev/rotate=e2e", "--overwrite")
                site.until(lambda: site.secret(_KEY)["token"] != old, "the Secret kept its token", seconds=60)
                after = len(answers)
                site.until(lambda: len(answers) >= after + 20, "the clients got no answers", seconds=60)
            finally:
                stop.set()
                for client in clients:
                    client.join()
            bad = [answer for answer in answers if answer != "ok"]
            if bad:
                raise CheckFailed(f"{len(bad)} of {len(answers)} calls failed: {bad[0]}")
            row.seen = f"{len(answers)} calls, 0 failed"
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
