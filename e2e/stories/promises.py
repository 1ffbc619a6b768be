"""The five checks of the seed's end-to-end script (`scripts/e2e-server-docker.sh`), on pods."""

import json
import threading
import uuid
from typing import Final

from e2e.load import Sender, event
from e2e.report import CheckFailed
from e2e.site import Site

DESCRIPTOR: Final = "seed 1: POST /v1/events?wait=true returns a generationJob"
RESTART: Final = "seed 2: api and workers restart mid-stream, nothing is lost"
REVOKE: Final = "seed 3: a revoked key can neither read nor write"
NO_LEGACY: Final = "seed 4: no worker-service.cjs runs in any container"
NO_BYPASS: Final = "seed 5: local-dev authentication is refused in a container"
ROWS: Final = (DESCRIPTOR, RESTART, REVOKE, NO_LEGACY, NO_BYPASS)
_LIST_PROCESSES: Final = (
    "import glob;print([open(p,'rb').read().replace(b'\\0',b' ').decode() for p in glob.glob('/proc/[0-9]*/cmdline')])"
)
_KEY: Final = "revoked-soon"


def tell(site: Site) -> None:
    """One after the other."""
    report = site.report
    with report.step("the five checks of the seed"):
        with report.check(DESCRIPTOR) as row:
            answer = site.call("POST", "/v1/events?wait=true", event(uuid.uuid4().hex, "wait for it"))
            job = answer.json().get("generationJob") if answer.status_code in {200, 201} else None
            if not job:
                raise CheckFailed(f"HTTP {answer.status_code} {answer.text[:200]}")
            row.seen = f"HTTP {answer.status_code}, job {job['status']}"
        with report.check(RESTART) as row:
            row.seen = _restart_mid_stream(site)
        with report.check(REVOKE) as row:
            row.seen = _revoke(site)
        with report.check(NO_LEGACY) as row:
            row.seen = _processes(site)
        with report.check(NO_BYPASS) as row:
            row.seen = _bypass(site)


def _restart_mid_stream(site: Site) -> str:
    sender = Sender(url=site.api_url, token=site.secret()["token"])
    stop = threading.Event()
    stream = threading.Thread(target=sender.stream, args=(stop,))
    stream.start()
    try:
        site.until(lambda: len(sender.acknowledged) >= 20, "nothing was acknowledged", seconds=60)
        for deployment in ("main-api", "main-worker"):
            site.kubectl("rollout", "restart", f"deployment/{deployment}")
        for deployment in ("main-api", "main-worker"):
            site.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=240s", seconds=260)
        before = len(sender.acknowledged)
        site.until(
            lambda: len(sender.acknowledged) >= before + 20 or sender.faults,
            "nothing was acknowledged after the restart",
            seconds=60,
        )
    finally:
        stop.set()
        stream.join()
    if sender.faults:
        raise CheckFailed(f"the stream ended early: {sender.faults[0]}")
    lost = sender.lost()
    site.until(lambda: not sender.unfinished(), "jobs stayed unfinished", seconds=120)
    if lost:
        raise CheckFailed(f"{len(lost)} of {len(sender.acknowledged)} acknowledged events are gone")
    return f"{len(sender.acknowledged)} acknowledged, 0 lost, {sender.refused} tries had to be repeated"


def _revoke(site: Site) -> str:
    spec = {"teamRef": {"name": "shop"}, "scopes": ["memories:read", "memories:write"]}
    kind = {"apiVersion": "commonplace.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": _KEY}}
    site.apply(kind | {"spec": spec})
    site.wait(f"apikey/{_KEY}", "condition=Ready", seconds=60)
    token = site.secret(_KEY)["token"]
    before = _read_and_write(site, token)
    site.patch(f"apikey/{_KEY}", {"spec": {"revoked": True}})
    site.wait(f"apikey/{_KEY}", "condition=Revoked", seconds=60)
    after = _read_and_write(site, token)
    if before != (200, 201) or not set(after) <= {401, 403}:
        raise CheckFailed(f"before {before}, after {after}")
    return f"read and write HTTP {before[0]} and {before[1]} before, {after[0]} and {after[1]} after"


def _read_and_write(site: Site, token: str) -> tuple[int, int]:
    search = {"projectId": "checkout", "query": "signatures"}
    read = site.call("POST", "/v1/search", search, token=token).status_code
    write = site.call("POST", "/v1/events", event(uuid.uuid4().hex, "is this refused"), token=token).status_code
    return read, write


def _processes(site: Site) -> str:
    pods = [pod for pod in site.objects("pods", "commonplace.dev/runtime") if pod["status"]["phase"] == "Running"]
    seen = 0
    for pod in pods:
        text = site.kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", _LIST_PROCESSES)
        seen += 1
        name = pod["metadata"]["name"]
        if "commonplace" not in text:
            raise CheckFailed(f"{name}: its processes were not seen: {text[:300]}")
        if "worker-service" in text:
            raise CheckFailed(f"{name} runs it: {text[:300]}")
    if not seen:
        raise CheckFailed("no pod of the runtime is running")
    return f"looked into {seen} containers"


def _bypass(site: Site) -> str:
    """Two pods as somebody would start them who knows claude-mem's variables: each must refuse with 78."""
    api = (site.get("deployment", "main-api") or {})["spec"]["template"]["spec"]
    seen = []
    for name, variable in (
        ("local-dev", {"name": "CLAUDE_MEM_AUTH_MODE", "value": "local-dev"}),
        ("bypass", {"name": "CLAUDE_MEM_ALLOW_LOCAL_DEV_BYPASS", "value": "1"}),
    ):
        spec = json.loads(json.dumps(api)) | {"restartPolicy": "Never"}
        container = spec["containers"][0]
        container["env"].append(variable)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
            container.pop(probe, None)
        site.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        site.wait(f"pod/{name}", "jsonpath={.status.phase}=Failed", seconds=60)
        state = (site.get("pod", name) or {})["status"]["containerStatuses"][0]["state"]["terminated"]
        said = site.kubectl("logs", name)
        site.kubectl("delete", "pod", name, "--wait=false")
        if state["exitCode"] != 78 or "CLAUDE_MEM" not in said:
            raise CheckFailed(f"{variable}: exit code {state['exitCode']}: {said[-200:]}")
        seen.append(str(state["exitCode"]))
    return f"exit codes {' and '.join(seen)}, with the variable's name"
