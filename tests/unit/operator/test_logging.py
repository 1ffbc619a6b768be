"""What other libraries log is put at the level that it deserves."""

import json
import logging

import pytest

from commonplace_operator.observability import configure_logging


def test_a_request_that_kopf_sends_again_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging(style="json", level="info")
        logging.getLogger("kopf._cogs.clients.api").error("Request attempt #1 failed; will retry: GET /x -> 429")
        logging.getLogger("kopf._cogs.clients.api").error("Request attempt #9 failed; escalating: GET /x -> 429")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "error"]
