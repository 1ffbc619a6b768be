"""A connection to the API server, and a namespace, for the cases of one module."""

from collections.abc import Iterator

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.crds.wire import Wire


@pytest.fixture(scope="module")
def wire(control_plane: ControlPlane, module_namespace: str) -> Iterator[Wire]:
    with control_plane.api() as api:
        yield Wire(api=api, namespace=module_namespace)
