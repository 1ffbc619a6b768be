"""5,000 jobs at once: the operator scales the workers up, the queue drains, and they go again."""

import json
from collections.abc import Callable
from typing import Any, Final

from e2e.load import Sender
from e2e.report import CheckFailed
from e2e.site import REPOSITORY, Site
from e2e.watch import Watch

JOBS: Final = 5_000
LEAST_AT_PEAK: Final = 3
PROVIDER: Final = "fake-provider"
SCALING: Final[dict[str, Any]] = {
    "mode": "Operator",
    "minReplicas": 1,
    "maxReplicas": 6,
    "drainTargetSeconds": 60,
    "targetQueueAgeSeconds": 30,
    "scaleDownStabilizationSeconds": 15,
}

PROVIDED: Final = "burst: another provider restarts workers only"
PEAK: Final = "burst (Operator): at least 3 workers at the peak"
DRAINED: Final = "burst (Operator): all 5,000 jobs are completed"
BACK: Final = "burst (Operator): back at the minimum"
EXPLAINED: Final = "burst (Operator): the number explains itself"
ROWS: Final = (PROVIDED, PEAK, DRAINED, BACK, EXPLAINED)


def tell(site: Site) -> None:
    """A slow model, a burst, and what becomes of the workers."""
    report = site.report
    with report.step("run a provider of 500 ms as a pod, and have the runtime ask it"), report.check(PROVIDED) as row:
        row.seen = use_fake_provider(site)
    with report.step(f"{JOBS} jobs, one session each, in mode Operator"):
        run_burst(site, SCALING, peak=PEAK, drained=DRAINED, back=BACK, while_scaled=_check_explanation)


def run_burst(
    site: Site,
    scaling: dict[str, Any],
    *,
    peak: str,
    drained: str,
    back: str,
    while_scaled: Callable[[Site], None],
) -> None:
    """One burst under these settings; checks the rows of these names, and `while_scaled` once the peak was reached."""
    report = site.report
    with site.scaled(**scaling):
        site.until(lambda: _workers(site) == scaling["minReplicas"], "the workers did not settle", seconds=180)
        sender = Sender(url=site.api_url, token=site.secret()["token"])
        with Watch(site) as watch:
            sender.burst(JOBS)
            report.say(f"{len(sender.acknowledged)} events acknowledged, {len(set(sender.jobs))} jobs")
            with report.check(peak) as row:
                site.until(
                    lambda: watch.most_ready >= LEAST_AT_PEAK,
                    lambda: f"fewer than {LEAST_AT_PEAK} workers were ready: {watch.line()}",
                    seconds=240,
                )
                row.seen = "reached while the queue drained"
            while_scaled(site)
            with report.check(drained) as row:
                site.until(
                    lambda: watch.backlog_of(sender) == 0,
                    lambda: f"it did not drain: {watch.line()}",
                    seconds=420,
                    every=2,
                )
                left = sender.unfinished()
                if left or len(set(sender.jobs)) != JOBS:
                    raise CheckFailed(f"{len(left)} of {len(set(sender.jobs))} jobs are not completed")
                lost = sender.lost()
                if lost:
                    raise CheckFailed(f"{len(lost)} of {len(sender.acknowledged)} acknowledged events are gone")
                row.seen = f"{len(set(sender.jobs))} of {JOBS}, 0 events lost"
            with report.check(back) as row:
                site.until(lambda: _workers(site) == scaling["minReplicas"], watch.line, seconds=420, every=2)
                row.seen = f"workers over time: {watch.line()}"
        report.rows[peak].seen = f"{watch.most_ready} workers ready at the peak"


def _workers(site: Site) -> int:
    status = (site.get("deployment", "main-worker") or {}).get("status") or {}
    return int(status.get("replicas", 0))


def _check_explanation(site: Site) -> None:
    def said() -> str | None:
        conditions = (site.get("memoryruntime", "main") or {})["status"]["conditions"]
        found = next((c for c in conditions if c["type"] == "ScalingActive"), None)
        return str(found["message"]) if found and "queued" in found["message"] else None

    with site.report.check(EXPLAINED) as row:
        row.seen = str(site.until(said, "no ScalingActive condition explains the number", seconds=90))


def use_fake_provider(site: Site, *, latency: float = 0.5) -> str:
    """The tests' fake model as a pod; the runtime's provider changes to it, and only workers restart for that."""
    site.kubectl("create", "configmap", PROVIDER, f"--from-file=provider.py={REPOSITORY / 'tests/fakes/provider.py'}")
    worker = (site.get("deployment", "main-worker") or {})["spec"]["template"]["spec"]
    base = worker["containers"][0]
    labels = {"app": PROVIDER}
    container = {
        "name": "provider",
        "image": base["image"],
        "imagePullPolicy": base["imagePullPolicy"],
        "command": ["python3"],
        "args": ["/fake/provider.py", "--host", "0.0.0.0", "--port", "8000", "--latency", str(latency)],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "securityContext": base["securityContext"],
        "volumeMounts": [{"name": "fake", "mountPath": "/fake"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "securityContext": worker["securityContext"],
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "fake", "configMap": {"name": PROVIDER}}, {"name": "tmp", "emptyDir": {}}],
    }
    site.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": PROVIDER},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": PROVIDER},
            "spec": {"selector": labels, "ports": [{"port": 8000, "targetPort": 8000}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "model"},
            "stringData": {"api-key": "test-provider-key", "base-url": f"http://{PROVIDER}.memory.svc:8000/v1"},
        },
    )
    site.kubectl("rollout", "status", f"deployment/{PROVIDER}", "--timeout=90s")
    before = {pod["metadata"]["uid"] for pod in site.objects("pods", "app.kubernetes.io/component=api")}
    generation = (site.get("memoryruntime", "main") or {})["metadata"]["generation"]
    site.patch(
        "memoryruntime/main",
        {"spec": {"provider": {"name": "openai", "model": "fake", "secretRef": {"name": "model"}}}},
    )
    site.until(
        lambda: (
            "COMMONPLACE_PROVIDER" in json.dumps(site.get("deployment", "main-worker"))
            and '"openai"' in json.dumps((site.get("deployment", "main-worker") or {})["spec"]["template"])
        ),
        f"the workers' template kept its provider after generation {generation}",
        seconds=60,
    )
    site.kubectl("rollout", "status", "deployment/main-worker", "--timeout=180s", seconds=200)
    after = {pod["metadata"]["uid"] for pod in site.objects("pods", "app.kubernetes.io/component=api")}
    if before != after:
        raise CheckFailed("api pods were restarted for a change of the provider")
    return f"workers rolled over, {len(after)} api pods stayed"
