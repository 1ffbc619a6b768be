"""Logs and metrics of the runtime: structlog lines on stderr, one Prometheus registry on its own port."""

import json
import logging
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from socketserver import TCPServer, ThreadingMixIn
from time import monotonic
from typing import Any, Final, Literal, TypeAlias, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from commonplace_runtime.scaling import QueueFigures

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

REQUESTS: Final = Counter(
    "commonplace_http_requests", "Answered requests", ["method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS: Final = Histogram(
    "commonplace_http_request_seconds", "Time to answer a request", ["method", "route"], registry=REGISTRY
)
GUARD_FAILURES: Final = Counter(
    "commonplace_guard_failures",
    "Requests that a guard let pass because its store failed",
    ["guard"],
    registry=REGISTRY,
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
SEARCH_INDEX_WORK: Final = Gauge(
    "commonplace_search_index_work", "Projects whose search index has something to do, 100 at most", registry=REGISTRY
)
SEARCH_MERGES: Final = Counter(
    "commonplace_search_merges", "Times that waiting memories became a segment of a search index", registry=REGISTRY
)
SEARCH_INDEX_FAILURES: Final = Counter(
    "commonplace_search_index_failures",
    "Times that the keeper of a search index could not go on with a project; each is tried again",
    registry=REGISTRY,
)
SEARCH_INDEX_FULL: Final = Counter(
    "commonplace_search_index_full",
    "Times that a search index had no room; its new memories are read row by row",
    registry=REGISTRY,
)


class QueueGauges(Collector):
    """
    What this process last saw of the queue; absent rather than old. Equal on every replica: aggregate with max.

    service_seconds is absent while nobody knows it.
    """

    FRESH_SECONDS: Final = 30.0
    _HELP: Final = {
        "backlog": "Jobs of the sessions that may be claimed now",
        "oldest_seconds": "How long the session that has waited longest could have been claimed",
        "in_flight": "Jobs being worked on",
        "service_seconds": "A worker's time for one job, mean of the newest 200 of the last hour",
        "arrival_rate": "Jobs a second that came in the last minute",
        "desired_workers": "Worker processes that the queue needs now, before any damping",
    }

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: tuple[float, str, Mapping[str, float | None]] | None = None

    def show(self, runtime: str, queue: QueueFigures, desired: int) -> None:
        """The queue of `runtime`, seen now, and the workers it needs."""
        values = {name: getattr(queue, name, None) for name in self._HELP}
        self._seen = (self._clock(), runtime, {**values, "desired_workers": desired})

    def collect(self) -> Iterator[Metric]:
        """The gauges, none when they are older than FRESH_SECONDS."""
        if self._seen is None or self._clock() - self._seen[0] > self.FRESH_SECONDS:
            return
        _, runtime, values = self._seen
        for name, help_text in self._HELP.items():
            value = values[name]
            if value is not None:
                gauge = GaugeMetricFamily(f"commonplace_queue_{name}", help_text, labels=["runtime"])
                gauge.add_metric([runtime], float(value))
                yield gauge


_MOST_ERRORS: Final = 8
"""How many errors of one chain or group a log line shows."""

QUEUE: Final = QueueGauges()
REGISTRY.register(QUEUE)


def frames_without_messages(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """
    A structlog processor: `exc_info` becomes `exception`, classes and frames without messages or local variables.

    A message may quote what a client sent: Postgres repeats the row that it refuses, a parser its input.
    """
    given = line.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else given
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        line["exception"] = _frames(error)
    return line


def _frames(error: BaseException) -> str:
    told: list[str] = []
    waiting = [error]
    while waiting and len(told) < _MOST_ERRORS:
        error = waiting.pop(0)
        sqlstate = getattr(error, "sqlstate", None)
        name = type(error).__name__ + (f" {sqlstate}" if sqlstate else "")
        told.append(name + "\n" + "".join(traceback.format_tb(error.__traceback__)))
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            waiting.append(cause)
    return "\n".join(told)


def configure_logging(level: str, form: Literal["json", "console"]) -> None:
    """Make structlog and the standard library's loggers write alike, to stderr."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    last: list[Any] = [frames_without_messages, renderer]
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
    if form == "json":
        # A line a request: by way of the standard library's records it would cost more than the request's own work.
        structlog.configure(
            processors=[*shared, frames_without_messages, structlog.processors.JSONRenderer(serializer=_json_line)],
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=True,
        )
        return
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _json_line(line: Any, **_options: Any) -> bytes:
    try:
        return orjson.dumps(line, default=repr)
    except TypeError:  # an integer above 64 bits, a lone surrogate
        return json.dumps(line, default=repr).encode()


Probe: TypeAlias = Callable[[], str | None]
"""None: all is well; else what is not."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the resolver for our name: seconds where there is none.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        """Nothing: a line a scrape helps nobody."""


def serve_metrics(host: str, port: int, probes: Mapping[str, Probe] | None = None) -> int:
    """
    Serve `/metrics` and `probes` (by path) from threads of their own; returns the port (`port` 0 takes a free one).

    A probe answers 200, or 503 and what is wrong.
    """
    metrics = make_wsgi_app(REGISTRY)
    known = probes or {}

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        probe = known.get(str(environ.get("PATH_INFO")))
        if probe is None:
            return cast(Iterable[bytes], metrics(environ, start_response))
        problem = probe()
        status = "200 OK" if problem is None else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{problem or 'ok'}\n".encode()]

    server = make_server(host, port, answer, _ServerIPv6 if ":" in host else _Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_port)
