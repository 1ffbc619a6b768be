import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging
from commonplace_runtime.observability import configure_logging
configure_logging("info", "json")
logging.getLogger("asyncpg.pool").warning("Failed to restore the pool connection floor", exc_info=OSError("away"))
logging.getLogger("elsewhere").warning("kept")
"""


def test_an_outage_is_told_by_us_and_not_by_the_pool_every_second() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert "kept" in done.stderr
    assert "connection floor" not in done.stderr


BROKEN = """
import logging, sys
import structlog
from commonplace_runtime.observability import configure_logging
configure_logging("info", sys.argv[1])

def leaky_step(payload):
    try:
        raise ValueError(f"cannot read {payload}")
    except ValueError as error:
        raise ExceptionGroup("both", [RuntimeError(f"row: {payload}"), error]) from error

try:
    leaky_step("top secret words")
except Exception:
    structlog.get_logger("x").exception("turn_broke")
    logging.getLogger("y").exception("foreign_broke")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_logged_fault_shows_where_it_happened_and_quotes_nothing(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN, form], capture_output=True, text=True, timeout=60, check=True)
    for told in ("turn_broke", "foreign_broke", "ExceptionGroup", "RuntimeError", "ValueError", "leaky_step"):
        assert told in done.stderr
    assert "top secret" not in done.stderr


ODD = """
import structlog
from commonplace_runtime.observability import configure_logging
configure_logging("info", "json")
structlog.get_logger("x").debug("not_asked_for")
structlog.get_logger("x").warning("counted", rows=2**70, name="\\ud800", kind={1, 2}.__class__)
"""


def test_a_line_is_json_whatever_it_tells() -> None:
    done = subprocess.run([sys.executable, "-c", ODD], capture_output=True, text=True, timeout=60, check=True)
    line = json.loads(done.stderr)
    assert (line["event"], line["level"], line["logger"], line["rows"]) == ("counted", "warning", "x", 2**70)
    assert line["timestamp"].endswith("Z")
    assert line["kind"] == "<class 'set'>"
