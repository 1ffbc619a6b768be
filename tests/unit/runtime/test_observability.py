import subprocess
import sys

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
