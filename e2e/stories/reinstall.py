"""Helm takes the operator away and brings it back, a runtime is deleted and comes back: memories and keys stay."""

from typing import Final

from e2e.report import CheckFailed
from e2e.site import RELEASE, SYSTEM, Site
from e2e.stories.install import PLANTED, QUESTION

SERVES: Final = "reinstall: the API serves while the operator is gone, objects and CRDs stay"
SAME_PODS: Final = "reinstall: a new install takes over without restarting a pod"
DATA: Final = "reinstall: a deleted and recreated runtime has its memories"
ROWS: Final = (SERVES, SAME_PODS, DATA)


def tell(site: Site) -> None:
    """Uninstall, look, install, look; then the same with the runtime itself."""
    report = site.report
    before = _pods(site)
    with report.step("helm uninstall"), report.check(SERVES) as row:
        site.helm_do("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "120s")
        found = _ranks(site)
        kinds = site.kubectl("get", "crd", "-o", "name").count("commonplace.dev")
        objects = len(site.kubectl("get", "memory", "-o", "name").split())
        if kinds != 4 or not objects:
            raise CheckFailed(f"{kinds} CRDs and {objects} objects are left")
        row.seen = f"recalled at rank {found}, {kinds} CRDs and {objects} objects stayed"
    with report.step("helm install again"), report.check(SAME_PODS) as row:
        site.install()
        old = site.secret()["token"]
        site.patch("apikey/checkout-agent", {"metadata": {"annotations": {"commonplace.dev/rotate": "reinstall"}}})
        site.until(lambda: site.secret()["token"] != old, "nobody rotates keys", seconds=90)
        site.wait("memoryruntime/main", "condition=Ready")
        after = _pods(site)
        # Workers may go meanwhile, for what the story before asked of them; a restart makes a new pod.
        new = [name for uid, name in after.items() if uid not in before]
        if new or not after:
            raise CheckFailed(f"new pods {sorted(new)}, before {sorted(before.values())}")
        row.seen = f"{len(after)} pods stayed, a key was rotated by the new one"
    with report.step("delete the MemoryRuntime and apply it again"), report.check(DATA) as row:
        site.kubectl("delete", "memoryruntime", "main", "--timeout=90s")
        site.until(lambda: not _pods(site), "pods outlived their runtime", seconds=120)
        site.apply_samples()
        site.wait("memoryruntime/main", "condition=Ready")
        site.reach_api()
        site.wait("apikey/checkout-agent", "condition=Ready", seconds=90)
        row.seen = f"recalled at rank {_ranks(site)} with the token from the Secret"


def _pods(site: Site) -> dict[str, str]:
    """Names of the runtime's pods by uid: a StatefulSet's pod keeps its name when it is restarted."""
    pods = site.objects(
        "pods", "commonplace.dev/runtime=main,app.kubernetes.io/component in (api,worker,postgres,redis)"
    )
    return {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods}


def _ranks(site: Site) -> int:
    found = site.search(QUESTION, limit=50)
    hit = next((number for number, item in enumerate(found, 1) if PLANTED in item["content"]), None)
    if hit is None:
        raise CheckFailed(f"the planted fact is not among {len(found)} memories")
    return hit
