"""Metrics under controller-runtime's names, so that existing dashboards work; a registry of our own."""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class QueueMetrics:
    """The figures of one queue."""

    depth: Gauge
    adds: Counter
    queue_seconds: Histogram
    work_seconds: Histogram
    retries: Counter


@dataclass(frozen=True, kw_only=True)
class LeaseMetrics:
    """The figures of one Lease."""

    leads: Gauge
    transitions: Gauge
    writes: Counter
    conflicts: Counter


class ObjectConditions(Collector):
    """
    How many objects are in which condition, as they were last reconciled by this process.

    Objects are counted and not named: there may be thousands of them.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], tuple[tuple[str, str, str], ...]] = {}

    def see(self, kind: str, namespace: str, name: str, conditions: Iterable[Mapping[str, Any]]) -> None:
        """An object's conditions, in their wire form."""
        self._seen[kind, namespace, name] = tuple((c["type"], c["status"], c["reason"]) for c in conditions)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """The object is gone, or somebody else's."""
        self._seen.pop((kind, namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        """One gauge for each kind, condition, status and reason that some object has."""
        gauge = GaugeMetricFamily(
            "commonplace_operator_conditions",
            "Objects by the conditions in their status",
            labels=["kind", "condition", "status", "reason"],
        )
        counted = Tally((kind, *entry) for (kind, _, _), entries in self._seen.items() for entry in entries)
        for labels, count in sorted(counted.items()):
            gauge.add_metric(labels, count)
        yield gauge


class Metrics:
    """All metrics of one operator process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        queue = ["name"]
        self._depth = Gauge("workqueue_depth", "Keys waiting", queue, registry=self.registry)
        self._adds = Counter("workqueue_adds", "Keys added", queue, registry=self.registry)
        self._queued = Histogram(
            "workqueue_queue_duration_seconds", "Wait of a key", queue, registry=self.registry, buckets=_SECONDS
        )
        self._worked = Histogram(
            "workqueue_work_duration_seconds", "Work on a key", queue, registry=self.registry, buckets=_SECONDS
        )
        self._retries = Counter("workqueue_retries", "Keys that back off", queue, registry=self.registry)
        self.reconciles = Counter(
            "controller_runtime_reconcile",
            "Reconciles by result: success, requeue, requeue_after, error",
            ["controller", "result"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Length of a reconcile",
            ["controller"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.events = Counter(
            "commonplace_operator_events",
            "Events by outcome: posted, deduplicated, dropped, failed",
            ["outcome"],
            registry=self.registry,
        )
        self.writes = Counter(
            "commonplace_operator_writes",
            "Writes to the Kubernetes API by kind and verb; Events and the Lease are not counted",
            ["kind", "verb"],
            registry=self.registry,
        )
        self.conditions = ObjectConditions()
        self.registry.register(self.conditions)
        self._leads = Gauge(
            "leader_election_master_status",
            "Whether this process leads: 1, or stands by: 0",
            queue,
            registry=self.registry,
        )
        self._transitions = Gauge(
            "commonplace_operator_lease_transitions",
            "Changes of the leader since the Lease was made",
            queue,
            registry=self.registry,
        )
        self._lease_writes = Counter(
            "commonplace_operator_lease_writes",
            "Writes of the Lease by outcome: done, conflict",
            ["name", "outcome"],
            registry=self.registry,
        )

    def of_queue(self, name: str) -> QueueMetrics:
        """The figures of one queue."""
        return QueueMetrics(
            depth=self._depth.labels(name),
            adds=self._adds.labels(name),
            queue_seconds=self._queued.labels(name),
            work_seconds=self._worked.labels(name),
            retries=self._retries.labels(name),
        )

    def of_lease(self, name: str) -> LeaseMetrics:
        """The figures of one Lease."""
        return LeaseMetrics(
            leads=self._leads.labels(name),
            transitions=self._transitions.labels(name),
            writes=self._lease_writes.labels(name, "done"),
            conflicts=self._lease_writes.labels(name, "conflict"),
        )

    def render(self) -> bytes:
        """Prometheus text."""
        return generate_latest(self.registry)

    def collect(self) -> list[Metric]:
        """All metrics as values."""
        return list(self.registry.collect())
