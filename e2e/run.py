"""
`make e2e`: a real cluster with pods, Commonplace installed by Helm, every story told, a table, nothing left behind.

CLUSTER=node (a node in namespaces of its own, needs root) or CLUSTER=kind (needs Docker); without it kind where Docker
answers, else node. STORIES=install,burst tells those only (install always comes first). KEEP=1 stays up.
"""

import contextlib
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, ModuleType
from typing import Final

from e2e.cluster.cache import ClusterError
from e2e.pods import docker_answers, open_site
from e2e.report import CheckFailed, Report, complain
from e2e.site import SYSTEM, TENANT, Site
from e2e.stories import backup, burst, chaos, deletion, hpa, install, keys, promises, reinstall

STORIES: Final[Mapping[str, ModuleType]] = {
    "install": install,
    "keys": keys,
    "promises": promises,
    "deletion": deletion,
    "burst": burst,
    "hpa": hpa,
    "chaos": chaos,
    "reinstall": reinstall,
    "backup": backup,
}
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class Interrupted(Exception):
    """SIGINT, SIGTERM or SIGHUP arrived."""


def main() -> int:
    """Exit code: 0 when every promise held, 1 when one did not, 2 for a wrong call, 130 when interrupted."""
    wanted = [name for name in os.environ.get("STORIES", "").split(",") if name] or list(STORIES)
    kind = os.environ.get("CLUSTER") or ("kind" if docker_answers() else "node")
    unknown = [name for name in wanted if name not in STORIES]
    if unknown or kind not in {"node", "kind"}:
        complain(f"unknown: {', '.join([*unknown, *([kind] if kind not in {'node', 'kind'} else [])])}")
        complain(f"STORIES may name {', '.join(STORIES)}; CLUSTER may be node or kind")
        return EXIT_USAGE
    told = {name: story for name, story in STORIES.items() if name in wanted or name == "install"}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    report = Report()
    for story in told.values():
        report.promise(*story.ROWS)
    code = EXIT_FAILED
    try:
        with ExitStack() as stack:
            try:
                site = open_site(stack, report, kind)
                code = _tell(site, told)
                if os.environ.get("KEEP") == "1":
                    _keep(site)
            finally:
                _ignore_signals()
                print("\n" + report.summary(), flush=True)
                report.say("ending the cluster …")
    except Interrupted:
        complain("interrupted: everything that was started has been ended")
        return EXIT_INTERRUPTED
    except (CheckFailed, ClusterError) as error:
        complain(f"the cluster could not be had: {error}")
    return code


def _tell(site: Site, told: Mapping[str, ModuleType]) -> int:
    """Every story; one that fails does not keep the next from being told, unless it is the first."""
    for name, story in told.items():
        try:
            story.tell(site)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - clients and servers fail in many ways; the next story is told all the same
            complain(f"\n{name}: {type(error).__name__}: {error}\n{_scene(site)}\n")
            if name == "install":
                break
    return 0 if site.report.succeeded else EXIT_FAILED


def _scene(site: Site) -> str:
    parts = [site.describe("memoryruntime,memoryteam,apikey")]
    for namespace in (TENANT, SYSTEM):
        for words in (("get", "pods", "-o", "wide"), ("get", "events", "--sort-by=.lastTimestamp")):
            with contextlib.suppress(CheckFailed):
                text = site.kubectl(*words, namespace=namespace)
                parts.append("\n".join(text.splitlines()[-15:]))
    for selector, namespace in (("app.kubernetes.io/name=commonplace", SYSTEM), ("commonplace.dev/runtime", TENANT)):
        with contextlib.suppress(CheckFailed):
            parts.append(site.kubectl("logs", "-l", selector, "--tail=6", "--prefix", namespace=namespace))
    return "\n".join(parts)


def _keep(site: Site) -> None:
    lines = [
        "",
        f"export KUBECONFIG={site.cluster.kubeconfig}",
        f'export PATH="{Path(site.cluster.kubectl).parent}:$PATH"',
        f"kubectl --namespace {TENANT} get memory,pods",
        "",
        "Ctrl-C ends it.",
    ]
    print("\n".join(lines), flush=True)
    with contextlib.suppress(Interrupted):
        signal.pause()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise Interrupted


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    raise SystemExit(main())
