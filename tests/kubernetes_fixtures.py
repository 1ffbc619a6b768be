"""
A pytest plugin: one real control plane for a whole test run, whatever the number of its workers, and only if needed.

Whoever first asks for the fixture `control_plane` starts it under a lock; everybody else attaches. The pytest process
that the user started owns it: it ends with that process, by whatever end. Our CRDs are in before its controllers start,
because garbage collection notices kinds that come later only after up to 30 s.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.cluster.build import ensure_built
from e2e.cluster.cache import ClusterError, file_lock
from e2e.cluster.control_plane import ControlPlane, stop_in

CRDS: Final = Path(__file__).resolve().parents[1] / "crds"
_SHARED: Final = pytest.StashKey[Path]()
_OWNER: Final = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    told: dict[str, str] = getattr(config, "workerinput", {})
    unique = f"commonplace-tests-{uuid.uuid4().hex[:12]}"
    config.stash[_SHARED] = Path(told.get("control_plane", str(Path(tempfile.gettempdir()) / unique)))
    config.stash[_OWNER] = int(told.get("control_plane_owner", os.getpid()))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called by pytest-xdist in the process that the user started, for each worker."""
    node.workerinput["control_plane"] = str(node.config.stash[_SHARED])
    node.workerinput["control_plane_owner"] = str(node.config.stash[_OWNER])


def pytest_collection_finish(session: pytest.Session) -> None:
    """A first build takes minutes, more than any test may: so it is done here, and not in the fixture."""
    if session.config.option.collectonly or not any(_needs_cluster(item) for item in session.items):
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    ensure_built(lambda line: terminal.write_line(line) if terminal else None)


def _needs_cluster(item: pytest.Item) -> bool:
    return not {"control_plane", "plane"}.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    shared = config.stash[_SHARED]
    stop_in(shared)
    shutil.rmtree(shared, ignore_errors=True)
    for beside in (_lock(shared), _failure(shared)):
        beside.unlink(missing_ok=True)


def _lock(shared: Path) -> Path:
    return shared.with_name(f"{shared.name}.lock")


def _failure(shared: Path) -> Path:
    return shared.with_name(f"{shared.name}.failed")


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> ControlPlane:
    """The run's one control plane, with our CRDs; its objects are shared, so work in a namespace of your own."""
    shared = pytestconfig.stash[_SHARED]
    with file_lock(_lock(shared)):
        if _failure(shared).exists():
            raise ClusterError(f"another worker could not start it: {_failure(shared).read_text()}")
        if shared.exists():
            return ControlPlane.attach(shared)
        try:
            return ControlPlane.start(shared, owner_pid=pytestconfig.stash[_OWNER], crds=CRDS)
        except ClusterError as error:
            _failure(shared).write_text(str(error))
            raise


def fresh_namespace(cluster: ControlPlane) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:10]}"
    with cluster.api() as api:
        status, answer = api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert status == 201, answer
    yield name
    # The answer comes at once, the content goes in the background.
    with cluster.api() as api:
        api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a new namespace for this test."""
    yield from fresh_namespace(control_plane)


@pytest.fixture(scope="module")
def module_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a new namespace for the tests of one module (one for each worker that runs some of them)."""
    yield from fresh_namespace(control_plane)
