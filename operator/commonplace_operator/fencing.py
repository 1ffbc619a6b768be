"""What the election asks of the Kubernetes API, and what it forbids: writes of a process that leads no more."""

from collections.abc import Callable, Sequence

from commonplace_operator import errors
from commonplace_operator.cluster import Body, Cluster
from commonplace_operator.resources import names
from commonplace_operator.resources.names import Kind


class FencedCluster:
    """
    A `Cluster` whose writes raise Superseded as soon as `term` does.

    The database refuses an older term by itself; the Kubernetes API cannot, so here nothing is sent without a lease.
    """

    def __init__(self, cluster: Cluster, *, term: Callable[[], int]) -> None:
        self._cluster = cluster
        self._term = term

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Body:
        """See `Cluster`."""
        return await self._cluster.get(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None, *, field_selector: str | None = None, label_selector: str | None = None
    ) -> "list[Body]":
        """See `Cluster`."""
        return await self._cluster.list(kind, namespace, field_selector=field_selector, label_selector=label_selector)

    async def create(self, kind: Kind, body: Body) -> Body:
        """See `Cluster`."""
        self._term()
        return await self._cluster.create(kind, body)

    async def apply(
        self,
        kind: Kind,
        body: Body,
        *,
        subresource: str | None = None,
        manager: str = names.FIELD_MANAGER,
        force: bool = True,
        dry_run: bool = False,
    ) -> Body:
        """See `Cluster`."""
        self._term()
        return await self._cluster.apply(
            kind, body, subresource=subresource, manager=manager, force=force, dry_run=dry_run
        )

    async def replace(self, kind: Kind, body: Body) -> Body:
        """See `Cluster`."""
        self._term()
        return await self._cluster.replace(kind, body)

    async def patch(self, kind: Kind, namespace: str, name: str, operations: Sequence[Body]) -> Body:
        """See `Cluster`."""
        self._term()
        return await self._cluster.patch(kind, namespace, name, operations)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """See `Cluster`."""
        self._term()
        await self._cluster.delete(kind, namespace, name, uid=uid)


class ClusterLeases:
    """The engine's `Leases` over a `Cluster`."""

    def __init__(self, cluster: Cluster, *, namespace: str, name: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name

    async def get(self) -> Body | None:
        """See `Leases`."""
        try:
            return await self._cluster.get(names.LEASE, self._namespace, self._name)
        except errors.NotFound:
            return None

    async def create(self, body: Body) -> Body:
        """See `Leases`."""
        return await self._cluster.create(names.LEASE, body)

    async def update(self, body: Body) -> Body:
        """See `Leases`."""
        return await self._cluster.replace(names.LEASE, body)
