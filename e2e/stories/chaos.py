"""Pods are killed one kind after the other while agents send events: what was acknowledged stays."""

import threading
import time
from typing import Final

from e2e.load import Sender
from e2e.report import CheckFailed
from e2e.site import SYSTEM, TENANT, Site

LOST: Final = "chaos: 0 acknowledged events lost, every job completed"
HEALED: Final = "chaos: everything is Ready again"
LEADER: Final = "chaos: another operator leads after the leader was killed"
ROWS: Final = (LOST, LEADER, HEALED)
_VICTIMS: Final = ("api", "worker", "redis", "postgres", "api", "worker")


def tell(site: Site) -> None:
    """A stream of events, and a pod killed without grace every few seconds."""
    report = site.report
    sender = Sender(url=site.api_url, token=site.secret()["token"])
    stop = threading.Event()
    streams = [threading.Thread(target=sender.stream, args=(stop,)) for _ in range(3)]
    with report.step("kill api, worker, Redis, Postgres and operator pods under load"):
        for stream in streams:
            stream.start()
        try:
            site.until(lambda: len(sender.acknowledged) >= 50, "nothing was acknowledged", seconds=60)
            for component in _VICTIMS:
                _kill(site, f"commonplace.dev/runtime=main,app.kubernetes.io/component={component}", TENANT)
                _goes_on(site, sender, component)
            with report.check(LEADER) as row:
                row.seen = _kill_leader(site)
        finally:
            stop.set()
            for stream in streams:
                stream.join()
        with report.check(LOST) as row:
            if sender.faults:
                raise CheckFailed(f"{len(sender.faults)} of {len(streams)} streams ended early: {sender.faults[0]}")
            lost = sender.lost()
            if lost:
                raise CheckFailed(f"{len(lost)} of {len(sender.acknowledged)} acknowledged events are gone")
            site.until(
                lambda: not sender.unfinished(),
                lambda: f"{len(sender.unfinished())} jobs stayed unfinished",
                seconds=300,
                every=3,
            )
            tries = f"{sender.refused} tries had to be repeated"
            row.seen = f"{len(sender.acknowledged)} acknowledged, {len(_VICTIMS)} pods killed, {tries}"
        with report.check(HEALED) as row:
            for what in ("memoryruntime/main", "memoryteam/shop", "apikey/checkout-agent"):
                site.wait(what, "condition=Ready")
            row.seen = "runtime, team and key"


def _kill(site: Site, selector: str, namespace: str) -> str:
    pods = site.objects("pods", selector, namespace=namespace)
    if not pods:
        raise CheckFailed(f"no pod {selector}")
    name = str(pods[0]["metadata"]["name"])
    site.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false", namespace=namespace)
    return name


def _goes_on(site: Site, sender: Sender, component: str) -> None:
    """The next kill comes only when capture works again."""
    known = len(sender.acknowledged)
    site.until(
        lambda: len(sender.acknowledged) >= known + 30,
        f"nothing was acknowledged after the {component} pod went",
        seconds=180,
    )
    if component in {"redis", "postgres"}:
        site.wait(f"pod/main-{component}-0", "condition=Ready", seconds=180)


def _kill_leader(site: Site) -> str:
    def holder() -> str:
        return site.kubectl(
            "get", "lease", "commonplace-operator-default", "-o", "jsonpath={.spec.holderIdentity}", namespace=SYSTEM
        )

    before = site.until(holder, "nobody leads", seconds=60)
    pods = [pod["metadata"]["name"] for pod in site.objects("pods", namespace=SYSTEM)]
    leader = next((name for name in pods if before.startswith(name)), None)
    if leader is None:
        raise CheckFailed(f"the lease is held by {before}, the pods are {pods}")
    began = time.monotonic()
    site.kubectl("delete", "pod", leader, "--grace-period=0", "--force", "--wait=false", namespace=SYSTEM)
    after = site.until(lambda: (h := holder()) != before and h, "the lease kept its holder", seconds=90)
    return f"{after} leads after {time.monotonic() - began:.0f} s"
