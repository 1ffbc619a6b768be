"""Logs and metrics of the runtime: structlog lines on stderr, one Prometheus registry on its own port."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any, Final, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

REQUESTS: Final = Counter(
    "commonplace_http_requests", "Answered requests", ["method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS: Final = Histogram(
    "commonplace_http_request_seconds", "Time to answer a request", ["method", "route"], registry=REGISTRY
)
EVENTS_INGESTED: Final = Counter("commonplace_events_ingested", "Events stored", registry=REGISTRY)
SECRETS_REDACTED: Final = Counter(
    "commonplace_secrets_redacted", "Secrets replaced before storage", ["pattern"], registry=REGISTRY
)
DOORBELL: Final = Counter("commonplace_doorbell", "Doorbell rings sent", ["outcome"], registry=REGISTRY)
JOBS: Final = Counter("commonplace_jobs", "Jobs that left processing", ["outcome"], registry=REGISTRY)
JOBS_RUNNING: Final = Gauge("commonplace_jobs_running", "Sessions being worked on", registry=REGISTRY)
MODEL_CALLS: Final = Counter(
    "commonplace_model_calls", "Calls to a generator", ["provider", "outcome"], registry=REGISTRY
)
MODEL_SECONDS: Final = Histogram(
    "commonplace_model_call_seconds", "Time of one call to a generator", ["provider"], registry=REGISTRY
)
MODEL_TOKENS: Final = Counter(
    "commonplace_model_tokens", "Tokens as the provider counts them", ["provider", "direction"], registry=REGISTRY
)


class QueueGauges(Collector):
    """What this process last saw of the queue; absent rather than old. Equal on every replica: aggregate with max."""

    FRESH_SECONDS: Final = 30.0
    _GAUGES: Final = (
        ("backlog", "backlog", "Due jobs that nobody works on"),
        ("oldestSeconds", "oldest_seconds", "How long the session that has waited longest could have been claimed"),
        ("inFlight", "in_flight", "Jobs being worked on"),
    )

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: tuple[float, Mapping[str, float]] | None = None

    def show(self, stats: Mapping[str, float]) -> None:
        """`stats` as `queue_stats_v1` returns them, seen now."""
        self._seen = (self._clock(), stats)

    def collect(self) -> Iterator[Metric]:
        """The gauges, none when they are older than FRESH_SECONDS."""
        if self._seen is None or self._clock() - self._seen[0] > self.FRESH_SECONDS:
            return
        for key, name, help_text in self._GAUGES:
            yield GaugeMetricFamily(f"commonplace_queue_{name}", help_text, value=float(self._seen[1][key]))


QUEUE: Final = QueueGauges()
REGISTRY.register(QUEUE)


def configure_logging(level: str, form: Literal["json", "console"]) -> None:
    """Make structlog and the standard library's loggers write alike, to stderr."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        # Plain: the default prints local variables, which hold payloads and keys.
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    # Once a second while Postgres is away, with a traceback; our own line says it once.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def serve_metrics(host: str, port: int) -> int:
    """Serve `/metrics` from a thread of its own; returns the port (`port` 0 takes a free one)."""
    server, _ = start_http_server(port, addr=host, registry=REGISTRY)
    return int(server.server_port)
