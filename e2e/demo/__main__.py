"""`make demo`: run the story, print the table, leave nothing behind."""

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import httpx2

from commonplace_runtime.embedded import EmbeddedServerFailed
from e2e.cluster.cache import ClusterError
from e2e.demo.managed import ManagedStack, ManagedStory
from e2e.demo.stack import Cluster, Stack, current_cluster, own_cluster, start_stores
from e2e.demo.story import ROWS, Story
from e2e.pods import open_site
from e2e.report import CheckFailed, Report, complain

POD_CLUSTERS = ("node", "kind")
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class Interrupted(Exception):
    """SIGINT, SIGTERM or SIGHUP arrived."""


def main(story_type: type[Story] = Story, stack_type: type[Stack] = Stack) -> int:
    """
    Run the demo, told by `story_type` on `stack_type`.

    Returns the exit code: 0 when every row held, 1 when one did not, 2 for a wrong call, 130 when interrupted.
    """
    wanted = os.environ.get("CLUSTER", "")
    if wanted not in ("", "current", *POD_CLUSTERS):
        complain(
            f"CLUSTER={wanted} is unknown: leave it out for a Kubernetes API of the demo's own, CLUSTER=current for "
            "yours, or CLUSTER=node or CLUSTER=kind for one that runs pods"
        )
        return EXIT_USAGE
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    report = Report()
    report.promise(*ROWS)
    code = EXIT_FAILED
    try:
        with ExitStack() as stack:
            try:
                if wanted in POD_CLUSTERS:
                    code = _run_pods(stack, report, wanted)
                else:
                    code = _run(stack, report, wanted, story_type, stack_type)
            finally:
                _ignore_signals()  # a second Ctrl-C must not interrupt the cleaning up
    except Interrupted:
        complain("interrupted: everything that was started has been ended")
        return EXIT_INTERRUPTED
    except (CheckFailed, ClusterError, EmbeddedServerFailed) as error:
        complain(f"the demo could not start: {error}")
    return code


def _run_pods(stack: ExitStack, report: Report, kind: str) -> int:
    """The story on a cluster that runs pods."""
    site = open_site(stack, report, kind)
    processes = ManagedStack(site=site)
    story = ManagedStory(stack=processes, report=report)
    error: Exception | None = None
    try:
        story.tell()
    except (CheckFailed, OSError, ValueError, KeyError, httpx2.HTTPError) as failure:
        error = failure
    print("\n" + report.summary(), flush=True)
    if error is not None:
        complain(f"\n{error}\n{processes.last_lines()}")
        return EXIT_FAILED
    if os.environ.get("KEEP") == "1":
        _keep(story)
    return 0 if report.succeeded else EXIT_FAILED


def _run(stack: ExitStack, report: Report, wanted: str, story_type: type[Story], stack_type: type[Stack]) -> int:
    with report.step("start a Kubernetes API" if not wanted else "look at the current cluster"):
        cluster = current_cluster(report.say) if wanted else own_cluster(stack, report.say)
    with report.step("start Postgres and Redis, migrate the schema"):
        processes = start_stores(stack, cluster, stack_type)
    if wanted:
        stack.callback(_clean_cluster, cluster, report)
    story = story_type(stack=processes, report=report)
    error: Exception | None = None
    try:
        with report.step("start the api and the worker"):
            processes.start_api()
            processes.start_worker()
        story.tell()
    except CheckFailed as failure:
        error = failure
    print("\n" + report.summary(), flush=True)
    if error is not None:
        complain(f"\n{error}\n{processes.last_lines()}")
        return EXIT_FAILED
    if os.environ.get("KEEP") == "1":
        _keep(story)
    return 0 if report.succeeded else EXIT_FAILED


def _keep(story: Story) -> None:
    with story.report.step("apply the samples once more, to leave a working team"):
        story.apply_samples()
        story.wait_ready()
        story.read_secret()
    cluster = story.stack.cluster
    lines = [
        "",
        f"export KUBECONFIG={cluster.kubeconfig}",
        f'export PATH="{Path(cluster.program).parent}:$PATH"',
        f"kubectl --namespace {cluster.namespace} get memory",
        "",
        story.secret["connect-command"],
        "",
        "Ctrl-C ends it.",
    ]
    print("\n".join(lines), flush=True)
    signal.pause()


def _clean_cluster(cluster: Cluster, report: Report) -> None:
    """Remove objects, namespace and the CRDs that the demo made; one that fails does not keep the next from going."""
    left = []
    with report.step("remove what the demo made in the cluster"):
        for what, remove in (
            ("its objects", _delete_objects),
            (f"namespace {cluster.namespace}", _delete_namespace),
            ("its CRDs", _delete_crds),
        ):
            try:
                remove(cluster)
            except (CheckFailed, subprocess.TimeoutExpired) as error:
                left.append(f"{what}: {error}")
    for line in left:
        complain(f"stayed in the cluster: {line}")


def _delete_objects(cluster: Cluster) -> None:
    kinds = "apikey,memoryquota,memoryteam,memoryruntime"
    try:
        cluster.kubectl("delete", kinds, "--all", "--ignore-not-found", "--timeout=30s")
    except CheckFailed:
        # Nobody is there to release them: in a namespace of the demo's own that is the demo's to do.
        for name in cluster.kubectl("get", kinds, "-o", "name").split():
            cluster.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        cluster.kubectl("delete", kinds, "--all", "--ignore-not-found", "--timeout=30s")


def _delete_namespace(cluster: Cluster) -> None:
    cluster.kubectl("delete", "namespace", cluster.namespace, "--ignore-not-found", "--timeout=120s")


def _delete_crds(cluster: Cluster) -> None:
    if cluster.made_crds:
        cluster.kubectl("delete", "crd", *cluster.made_crds, "--timeout=60s")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise Interrupted


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    raise SystemExit(main())
