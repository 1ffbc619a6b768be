"""Logging: one JSON object a line on standard error, also for what kopf and other libraries log."""

import logging
import sys
from typing import Final, Literal

import structlog

# kopf says at level info what our own lines say better; aiohttp and asyncpg never repeat a payload at warning.
_QUIET: Final = ("kopf", "aiohttp", "asyncio", "asyncpg", "kubernetes")


class _RetriesAreNoErrors(logging.Filter):
    """kopf logs each request that it will send again as an error; while an API server starts that is its day's work."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Turn such a line into a warning."""
        if record.levelno == logging.ERROR and record.name.startswith("kopf") and "will retry" in record.getMessage():
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def configure_logging(*, style: Literal["json", "console"], level: str) -> None:
    """Send everything through structlog. Called once, by the composition root."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_RetriesAreNoErrors())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
