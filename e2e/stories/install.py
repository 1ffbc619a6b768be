"""An administrator installs by Helm and applies objects; a developer's agent recalls with the URL from the Secret."""

import json
from typing import Final

from e2e.load import Sender
from e2e.report import CheckFailed
from e2e.site import SAMPLES, SYSTEM, TENANT, Site

PLANTED: Final = "needs two signatures"
QUESTION: Final = "Which repayments need another person's consent since our audit?"

HELM: Final = "install: helm install and helm test succeed"
READY: Final = "install: a managed runtime, a team and a key become Ready"
TRIAL: Final = "install: the embedded database is labelled as a trial"
RECALL: Final = "install: a recorded session is recalled over MCP"
RESTRICTED: Final = "install: every pod passes restricted Pod Security"
ROWS: Final = (HELM, READY, TRIAL, RECALL, RESTRICTED)


def tell(site: Site) -> None:
    """Install, become ready, capture, recall."""
    report = site.report
    with report.step("helm install"), report.check(HELM) as row:
        labels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        for namespace in (SYSTEM, TENANT):
            site.kubectl("create", "namespace", namespace)
            site.kubectl("label", "namespace", namespace, *labels)
        site.install()
        site.helm_do("test", "commonplace", "--namespace", SYSTEM, "--timeout", "120s")
        ready = site.kubectl("get", "deployments", "-o", "jsonpath={.items[*].status.readyReplicas}", namespace=SYSTEM)
        row.seen = f"{ready} operator replicas ready"
    with report.step("kubectl apply -f docs/samples/managed, a team and a key"), report.check(READY) as row:
        site.open_node_port()
        site.apply_samples()
        site.wait("memoryruntime/main", "condition=Ready")
        site.reach_api()
        for what in ("memoryteam/shop", "apikey/checkout-agent"):
            site.wait(what, "condition=Ready", seconds=60)
        row.seen = site.kubectl("get", "memoryruntime", "main", "--no-headers").strip()
    report.say("$ kubectl get memory -A\n" + site.kubectl("get", "memory", "--all-namespaces"))
    with report.check(TRIAL) as row:
        runtime = site.get("memoryruntime", "main") or {}
        found = [c for c in runtime["status"]["conditions"] if c["type"] == "TrialOnly"]
        if not found or runtime["status"].get("database") != "Embedded":
            raise CheckFailed(f"status says {runtime['status']}")
        row.seen = f"{found[0]['reason']}, database {runtime['status']['database']}"
    with report.step("replay a recorded session, recall over MCP"), report.check(RECALL) as row:
        row.seen = _recall(site)
    with report.check(RESTRICTED) as row:
        pods = site.objects("pods") + site.objects("pods", namespace=SYSTEM)
        refused = [pod["metadata"]["name"] for pod in pods if not _is_restricted(pod)]
        if refused:
            raise CheckFailed(f"not restricted: {', '.join(refused)}")
        row.seen = f"{len(pods)} pods in two namespaces that enforce it"


def _recall(site: Site) -> str:
    lines = (SAMPLES / "agent-session.ndjson").read_text().splitlines()
    batch = [json.loads(line) | {"projectId": "checkout"} for line in lines]
    sender = Sender(url=site.api_url, token=site.secret()["token"])
    sender.send(batch)
    site.until(lambda: not sender.unfinished(), "jobs stayed unfinished", seconds=90)
    found = site.search(QUESTION)
    hit = next((number for number, item in enumerate(found[:3], 1) if PLANTED in item["content"]), None)
    if hit is None:
        raise CheckFailed(f"not among the first 3 of {len(found)} memories")
    return f"{len(batch)} events, rank {hit} of {len(found)}"


def _is_restricted(pod: dict[str, object]) -> bool:
    spec = pod["spec"]
    assert isinstance(spec, dict)
    return all(
        (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is True
        and (container.get("securityContext") or {}).get("allowPrivilegeEscalation") is False
        for container in spec["containers"]
    )
