"""`make demo`: run the story, print the table, leave nothing behind."""

import os
import signal
from contextlib import ExitStack
from types import FrameType

from commonplace_runtime.embedded import EmbeddedServerFailed
from e2e.cluster.cache import ClusterError
from e2e.demo.report import CheckFailed, Report, complain
from e2e.demo.stack import Cluster, Stack, current_cluster, own_cluster, start_stores
from e2e.demo.story import ROWS, Story

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class Interrupted(Exception):
    """SIGINT, SIGTERM or SIGHUP arrived."""


def main(story_type: type[Story] = Story, stack_type: type[Stack] = Stack) -> int:
    """
    Run the demo, told by `story_type` on `stack_type`.

    Returns the exit code: 0 when every row held, 1 when one did not, 2 for a wrong call, 130 when interrupted.
    """
    wanted = os.environ.get("CLUSTER", "")
    if wanted not in ("", "current"):
        complain(f"CLUSTER={wanted} is unknown: leave it out for a cluster of the demo's own, or say CLUSTER=current")
        return EXIT_USAGE
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    report = Report()
    report.promise(*ROWS)
    code = EXIT_FAILED
    try:
        with ExitStack() as stack:
            try:
                code = _run(stack, report, wanted, story_type, stack_type)
            finally:
                _ignore_signals()  # a second Ctrl-C must not interrupt the cleaning up
    except Interrupted:
        complain("interrupted: everything that was started has been ended")
        return EXIT_INTERRUPTED
    except (CheckFailed, ClusterError, EmbeddedServerFailed) as error:
        complain(f"the demo could not start: {error}")
    return code


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
    lines = [
        "",
        f"KUBECONFIG={story.stack.cluster.kubeconfig}",
        f"namespace {story.stack.cluster.namespace}",
        "",
        story.secret["connect-command"],
        "",
        "Ctrl-C ends it.",
    ]
    print("\n".join(lines), flush=True)
    signal.pause()


def _clean_cluster(cluster: Cluster, report: Report) -> None:
    with report.step("remove what the demo made in the cluster"):
        kinds = "apikey,memoryquota,memoryteam,memoryruntime"
        cluster.kubectl("delete", kinds, "--all", "--ignore-not-found", "--timeout=60s")
        cluster.kubectl("delete", "namespace", cluster.namespace, "--ignore-not-found", "--timeout=120s")
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
