"""
`python -m e2e.cluster build | up | down | status | run [--crds DIRECTORY] -- COMMAND …` for a control plane, and
`python -m e2e.cluster node up | down | status | load IMAGE.tar` for a node that runs pods.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from e2e.cluster.build import ensure_built
from e2e.cluster.cache import ClusterError, cache_root, file_lock
from e2e.cluster.control_plane import ControlPlane, stop_in
from e2e.cluster.node import Node, stop_node_in


def main() -> int:
    # Without this SIGTERM would skip the clean-up that Ctrl-C gets.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = _parser().parse_args()
    try:
        return int(arguments.verb(arguments))
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description="A real Kubernetes API on loopback")
    verbs = parser.add_subparsers(required=True)
    verbs.add_parser("build", help="compile it into the cache (minutes the first time)").set_defaults(verb=_build)
    up = verbs.add_parser("up", help="start one that stays; prints its KUBECONFIG")
    up.set_defaults(verb=_up)
    verbs.add_parser("down", help="end it and remove its files").set_defaults(verb=_down)
    verbs.add_parser("status", help="show its processes").set_defaults(verb=_status)
    run = verbs.add_parser("run", help="start one for one command, with KUBECONFIG set and kubectl on the PATH")
    run.set_defaults(verb=_run)
    run.add_argument("command", nargs="+")
    node = verbs.add_parser("node", help="the same with a node that runs pods (root)").add_subparsers(required=True)
    node_up = node.add_parser("up", help="start one that stays; prints its KUBECONFIG")
    node_up.set_defaults(verb=_node_up)
    node.add_parser("down", help="end it and remove its files").set_defaults(verb=_node_down)
    node.add_parser("status", help="show its processes").set_defaults(verb=_node_status)
    load = node.add_parser("load", help="load an image archive, as docker save or e2e.cluster.images write it")
    load.set_defaults(verb=_node_load)
    load.add_argument("archive", type=Path, metavar="IMAGE.tar")
    for verb in (up, run, node_up):
        verb.add_argument("--crds", type=Path, help="a directory of CustomResourceDefinitions to install")
    return parser


def _say(line: str) -> None:
    print(f"cluster: {line}", file=sys.stderr, flush=True)


def _home() -> Path:
    return cache_root() / "up"


def _node_home() -> Path:
    return cache_root() / "node"


def _build(arguments: argparse.Namespace) -> int:
    print(ensure_built(_say))
    return 0


def _up(arguments: argparse.Namespace) -> int:
    ensure_built(_say)
    with file_lock(_home().with_name("up.lock"), waiting=lambda: _say("another run is starting it: waiting")):
        try:
            cluster = ControlPlane.attach(_home())
            _say("it runs already")
        except ClusterError:
            _remove()
            started = time.monotonic()
            cluster = ControlPlane.start(_home(), owned=False, crds=arguments.crds, report=_say)
            _say(f"ready after {time.monotonic() - started:.1f} s; end it with: python -m e2e.cluster down")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    with file_lock(_home().with_name("up.lock")):
        _remove()
    return 0


def _remove() -> None:
    stop_in(_home())
    # A start that was killed before its first program leaves files and no record.
    shutil.rmtree(_home(), ignore_errors=True)


def _status(arguments: argparse.Namespace) -> int:
    cluster = ControlPlane.attach(_home())
    for program, process in cluster.processes.items():
        print(f"{program:<24} {f'pid {process.pid}' if process.is_alive else 'ended'}")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    with ControlPlane.start(crds=arguments.crds, report=_say) as cluster:
        return subprocess.run(arguments.command, env=cluster.environment(), check=False).returncode


def _node_up(arguments: argparse.Namespace) -> int:
    with file_lock(_node_home().with_name("node.lock"), waiting=lambda: _say("another run is starting it: waiting")):
        try:
            node = Node.attach(_node_home())
            _say("it runs already")
        except ClusterError:
            _remove_node()
            started = time.monotonic()
            node = Node.start(_node_home(), owned=False, crds=arguments.crds, report=_say)
            _say(f"ready after {time.monotonic() - started:.1f} s; end it with: python -m e2e.cluster node down")
    _say(f"NodePorts answer on {node.address}")
    print(f"export KUBECONFIG={node.kubeconfig}")
    return 0


def _node_down(arguments: argparse.Namespace) -> int:
    with file_lock(_node_home().with_name("node.lock")):
        _remove_node()
    return 0


def _remove_node() -> None:
    stop_node_in(_node_home())
    shutil.rmtree(_node_home(), ignore_errors=True)


def _node_status(arguments: argparse.Namespace) -> int:
    node = Node.attach(_node_home())
    for pid, program in node.program_names().items():
        print(f"{program:<24} pid {pid}")
    print(f"export KUBECONFIG={node.kubeconfig}")
    return 0


def _node_load(arguments: argparse.Namespace) -> int:
    Node.attach(_node_home()).load(arguments.archive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
