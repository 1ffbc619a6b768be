"""What a team lives through, as steps that check themselves."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from e2e.demo.stack import REPOSITORY, Stack
from e2e.report import CheckFailed, Report

SAMPLES = REPOSITORY / "docs" / "samples"
SAMPLE_URL = "http://127.0.0.1:8787"
PLANTED = "needs two signatures"
QUESTION = "Which repayments need another person's consent since our audit?"
NEVER_STORED = ("my manager is angry", "AKIAIOSFODNN7EXAMPLE")
TOP = 3

READY = "every object is Ready"
ACCEPTED = "the session is accepted"
JOBS = "its jobs are completed"
FOUND = "the planted fact is recalled over MCP"
SOURCE = "the answer names its source event"
SAME = "the key reaches its own project only"
PRIVATE = "private text and secrets are not recalled"
ROTATED = "old and new token work after rotation"
REVOKED = "a revoked key is refused at once"
DELETED = "the deleted team leaves nothing in the cluster"
ROWS = (READY, ACCEPTED, JOBS, FOUND, SOURCE, SAME, PRIVATE, ROTATED, REVOKED, DELETED)


@dataclass(kw_only=True)
class Story:
    """One run. Time-outs in seconds are fields, so that a test of failure need not wait long."""

    stack: Stack
    report: Report
    ready_seconds: float = 60
    jobs_seconds: float = 60
    refuse_seconds: float = 20
    http: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=30))
    secret: dict[str, str] = field(default_factory=dict)
    token: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    planted_id: str = ""

    def tell(self) -> None:
        """Every chapter in order. Raises CheckFailed at the first promise that does not hold."""
        self.install()
        self.become_ready()
        self.replay()
        self.await_jobs()
        self.recall()
        self.rotate()
        self.revoke()
        self.delete_team()

    def install(self) -> None:
        """CRDs that are missing, a namespace, the database's Secret, and the operator."""
        cluster = self.stack.cluster
        with self.report.step("install the CRDs, a namespace and the operator"):
            for file in sorted((REPOSITORY / "crds").glob("*.yaml")):
                name = file.stem + ".commonplace.dev"
                if not cluster.kubectl("get", "customresourcedefinition", name, "--ignore-not-found", "-o", "name"):
                    cluster.kubectl("create", "-f", str(file))
                    cluster.made_crds.append(name)
            cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", *_our_crds())
            cluster.kubectl("create", "namespace", cluster.namespace)
            self._create_database_secret()
            self.stack.start_operator()

    def _create_database_secret(self) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "commonplace-database"},
            "stringData": {"uri": self.stack.operator_database_url},
        }
        self.stack.cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    def become_ready(self) -> None:
        """Apply docs/samples and wait for Ready."""
        with self.report.step("kubectl apply -f docs/samples"):
            self.apply_samples()
        with self.report.step("wait for Ready"), self.report.check(READY) as row:
            self.wait_ready()
            table = self.stack.cluster.kubectl("get", "memory", "--all-namespaces")
            row.seen = f"{table.count('True')} objects"
        self.report.say("$ kubectl get memory -A\n" + table)
        self.read_secret()

    def apply_samples(self) -> None:
        """Apply every sample, with the api's real address in place of the one in the file."""
        for file in sorted(SAMPLES.glob("*.yaml"), key=lambda file: _ORDER.index(file.stem)):
            text = file.read_text().replace(SAMPLE_URL, self.stack.api_url)
            self.report.say(self.stack.cluster.kubectl("apply", "-f", "-", stdin=text))

    def wait_ready(self) -> None:
        """Until every object of ours is Ready. Raises CheckFailed after `ready_seconds`."""
        kinds = "memoryruntime,memoryteam,apikey,memoryquota"
        self.stack.cluster.kubectl(
            "wait", kinds, "--all", "--for=condition=Ready", f"--timeout={self.ready_seconds:.0f}s"
        )

    def read_secret(self) -> None:
        """Token and MCP URL as a user takes them: from the Secret."""
        found = json.loads(self.stack.cluster.kubectl("get", "secret", "checkout-agent", "-o", "json"))
        self.secret = {name: base64.b64decode(value).decode() for name, value in found["data"].items()}
        self.token = self.secret["token"]
        self.report.say(f"the Secret checkout-agent holds {', '.join(sorted(self.secret))}")

    def replay(self) -> None:
        """Send the recorded session as an agent's hooks would, with the key from the Secret."""
        lines = (SAMPLES / "agent-session.ndjson").read_text().splitlines()
        batch = [json.loads(line) | {"projectId": "checkout"} for line in lines]
        title = f"replay a recorded agent session: {len(batch)} events to POST /v1/events/batch"
        with self.report.step(title), self.report.check(ACCEPTED) as row:
            answer = self.call("POST", "/v1/events/batch", batch)
            if answer.status_code != 201:
                raise CheckFailed(f"HTTP {answer.status_code} {answer.text[:200]}")
            self.events = answer.json()["events"]
            self.jobs = [item["generationJob"]["id"] for item in self.events]
            index = next(number for number, event in enumerate(batch) if PLANTED in json.dumps(event["payload"]))
            self.planted_id = self.events[index]["event"]["id"]
            row.seen = f"{len(self.events)} events, {len(set(self.jobs))} jobs"

    def await_jobs(self) -> None:
        """Poll each job until it is final; every one must be completed."""
        with self.report.step("wait for the jobs"), self.report.check(JOBS) as row:
            states: dict[str, str] = {}
            deadline = time.monotonic() + self.jobs_seconds
            for job in self.jobs:
                states[job] = self._await_job(job, deadline)
            completed = sum(state == "completed" for state in states.values())
            if completed != len(states):
                raise CheckFailed(f"{completed} of {len(states)} completed after {self.jobs_seconds:.0f} s")
            row.seen = f"{completed} of {len(states)}"

    def _await_job(self, job: str, deadline: float) -> str:
        while True:
            answer = self.call("GET", f"/v1/jobs/{job}")
            state = (
                answer.json()["generationJob"]["status"] if answer.status_code == 200 else f"HTTP {answer.status_code}"
            )
            if state in ("completed", "failed", "cancelled") or time.monotonic() > deadline:
                return str(state)
            time.sleep(0.05)

    def recall(self) -> None:
        """Ask over MCP, with the official client, at the URL from the Secret."""
        with self.report.step(f"recall over MCP: {QUESTION}"):
            found = asyncio.run(self._ask({"query": QUESTION, "limit": 20}))["observations"]
            hit = next((item for item in found[:TOP] if PLANTED in item["content"]), None)
            with self.report.check(FOUND) as row:
                if hit is None:
                    raise CheckFailed(f"not among the first {TOP} of {len(found)} memories")
                shared = _words(QUESTION) & _words(hit["content"])
                if len(shared) > 2:
                    raise CheckFailed(f"the question shares {len(shared)} words with the fact: {sorted(shared)}")
                row.seen = f"rank {found.index(hit) + 1} of {len(found)}, shared words: {', '.join(sorted(shared))}"
            self.report.say(f"-> {hit['content'][:300]}")
            with self.report.check(SOURCE) as row:
                sources = [source["sourceId"] for source in hit["sources"]]
                if self.planted_id not in sources:
                    raise CheckFailed(f"sources {sources} without the event {self.planted_id}")
                row.seen = f"event {self.planted_id}"
            self._check_reach()
            self._check_privacy()

    def _check_reach(self) -> None:
        with self.report.check(SAME) as row:
            answer = self.call("POST", "/v1/search", {"projectId": "warehouse", "query": QUESTION})
            if answer.status_code != 403:
                raise CheckFailed(f"search in the project warehouse answered {answer.status_code}")
            row.seen = "HTTP 403 for the project warehouse"

    def _check_privacy(self) -> None:
        with self.report.check(PRIVATE) as row:
            everything = asyncio.run(self._ask({"query": "manager angry pager AWS access key staging", "limit": 100}))
            stored = json.dumps(
                [everything, *(self.call("GET", f"/v1/events/{item['event']['id']}").json() for item in self.events)]
            )
            leaked = [text for text in NEVER_STORED if text in stored]
            if leaked:
                raise CheckFailed(f"{len(leaked)} of {len(NEVER_STORED)} came back")
            row.seen = f"{len(NEVER_STORED)} planted, 0 came back"

    async def _ask(self, arguments: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(self.secret["mcp-url"], http_client=http)) as client,
        ):
            result = await client.call_tool("search", arguments)
        text = result.content[0].text if result.content and result.content[0].type == "text" else ""
        if result.is_error:
            raise CheckFailed(f"the tool answered: {text[:200]}")
        return json.loads(text)

    def rotate(self) -> None:
        """Annotate the ApiKey; both tokens work during the grace period."""
        with self.report.step("rotate the key"), self.report.check(ROTATED) as row:
            old = self.token
            self.stack.cluster.kubectl(
                "annotate", "apikey", "checkout-agent", "commonplace.dev/rotate=demo", "--overwrite"
            )
            self._await(lambda: self._reread() != old, self.ready_seconds, "the Secret kept its token")
            statuses = {name: self.status_with(token) for name, token in (("old", old), ("new", self.token))}
            if set(statuses.values()) != {200}:
                raise CheckFailed(f"HTTP {statuses}")
            row.seen = "HTTP 200 with both"

    def _reread(self) -> str:
        self.token = self._secret_token()
        return self.token

    def _secret_token(self) -> str:
        template = "{.data.token}"
        encoded = self.stack.cluster.kubectl("get", "secret", "checkout-agent", "-o", f"jsonpath={template}")
        return base64.b64decode(encoded).decode()

    def revoke(self) -> None:
        """Set `revoked`; once the object says so the next request is refused."""
        with self.report.step("revoke the key"), self.report.check(REVOKED) as row:
            self.stack.cluster.kubectl(
                "patch", "apikey", "checkout-agent", "--type=merge", "-p", '{"spec":{"revoked":true}}'
            )
            self.stack.cluster.kubectl(
                "wait", "apikey/checkout-agent", "--for=condition=Revoked", f"--timeout={self.refuse_seconds:.0f}s"
            )
            status = self.status_with(self.token)
            if status != 403:
                raise CheckFailed(f"HTTP {status} with the revoked token")
            row.seen = "HTTP 403"

    def delete_team(self) -> None:
        """Delete the team and what hangs on it; nothing is left but the runtime."""
        with self.report.step("delete the team"), self.report.check(DELETED) as row:
            kubectl = self.stack.cluster.kubectl
            kubectl("delete", "apikey,memoryquota,memoryteam", "--all", "--timeout=60s")
            self._await(
                lambda: not kubectl("get", "secret", "checkout-agent", "--ignore-not-found", "-o", "name").strip(),
                60,
                "the Secret outlived its ApiKey",
            )
            left = kubectl("get", "apikey,memoryquota,memoryteam", "-o", "name").split()
            if left:
                raise CheckFailed(f"{', '.join(left)} stayed")
            row.seen = "objects, Secret and finalizers are gone"

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> httpx2.Response:
        """One request with the key from the Secret, or with `token`."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return self.http.request(method, self.stack.api_url + path, json=body, headers=headers)

    def status_with(self, token: str) -> int:
        """The status that `/v1/connect` answers to this token."""
        return self.call("GET", "/v1/connect", token=token).status_code

    def _await(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise CheckFailed(f"{otherwise} for {seconds:.0f} s")
            time.sleep(0.1)


_ORDER = ["runtime", "team", "apikey", "quota"]


def _our_crds() -> list[str]:
    return [f"{file.stem}.commonplace.dev" for file in sorted(Path(REPOSITORY / "crds").glob("*.yaml"))]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))
