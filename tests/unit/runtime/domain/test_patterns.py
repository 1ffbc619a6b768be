"""No text of a payload makes a pattern walk it again and again: the time grows with the text, not with its square."""

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from commonplace_runtime.domain import commands, prose
from commonplace_runtime.domain.condense import condense
from commonplace_runtime.domain.observations import SourceEvent

SIZE: Final = 100_000


def repeated(piece: str, last: str = "", *, size: int = SIZE) -> str:
    return piece * ((size - len(last)) // len(piece)) + last


def lines(line: str) -> str:
    return f"{line}\n" * commands.MAX_LINES


def prose_of(piece: str, last: str = "") -> str:
    return repeated(piece, last, size=prose.MAX_TEXT)


def looked_at(**fields: Any) -> None:
    event = SourceEvent(
        event_type="tool_use",
        source_adapter="hook",
        platform_source="claude",
        occurred_at=datetime(2026, 11, 21, tzinfo=UTC),
        payload=fields,
    )
    condense([event, event], (), fold_runs=True)


NAMES: Final = {
    "no server": repeated("q"),
    "servers": repeated("a__"),
    "dots": repeated("."),
    "lines": repeated("a\n"),
    "words": repeated("get_", "!"),
}
OUTPUTS: Final = {
    "tests, then digits": lines("Tests:" + " " * 200 + "1" * 190),
    "tests, then blanks": lines("Tests: " + " " * 390),
    "tests, then nothing": "Tests:" + lines(""),
    "tests, then small numbers": lines("Tests: " + "1 " * 196),
    "passed": lines("1 passed" * 49 + "!"),
    "equals": lines("=" * 399),
    "ok, then nothing": lines("ok") + lines("") + lines(" " * 399),
    "digits": lines("1" * 399),
    "errors": lines("E  " * 133),
}
COMMANDS: Final = {
    "directories": repeated("cd a;"),
    "directories, then no more": "cd " + repeated(";"),
    "variables": repeated("A=b "),
    "a long variable": "A=" + repeated("A"),
    "sudo": repeated("sudo "),
    "sed": "sed -" + repeated("w"),
    "options": "psql " + repeated("-c "),
    "a select": "psql -c 'select " + repeated("count(a) "),
    "blanks in a select": "psql -c 'select 1" + repeated(" ") + "x",
    "arrows": repeated(">&"),
    "joints": repeated("&&|;"),
    "lines": repeated("kubectl get pods\n"),
}
TEXTS: Final = {
    "capitals": prose_of("A", "_"),
    "capitals and digits": prose_of("A1", "_"),
    "capitals and dashes": prose_of("AA-", "_"),
    "low lines": "a" + prose_of("_"),
    "dots": prose_of("a."),
    "humps": prose_of("aA"),
    "slashes": prose_of("a/"),
    "tildes": prose_of("~."),
    "ticks": prose_of("`a"),
    "fences": prose_of("```\n"),
    "sentences": prose_of("We use AA. "),
    "cues": prose_of("we have "),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_the_name_of_a_tool_holds_nothing_up(name: str) -> None:
    looked_at(tool_name=name, tool_input={"query": "x"}, tool_response="x")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_the_output_of_a_command_holds_nothing_up(output: str) -> None:
    commands.outcome_of(output, failed=False, exit_code=None)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_line_holds_nothing_up(command: str) -> None:
    commands.bare_command(command)
    commands.writes(command)
    commands.is_noise(command, "x", failed=False)
    commands.is_noise(command, "", failed=False)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_somebody_wrote_holds_nothing_up(text: str) -> None:
    for _ in range(20):
        prose.findings(text)
        prose.keywords(text)


def test_the_summary_of_a_test_run_is_still_quoted() -> None:
    output = "Test Suites: 1 failed, 2 passed, 3 total\nTests:       1 failed, 11 passed, 12 total\n"
    outcome = commands.outcome_of(output, failed=False, exit_code=None)
    assert outcome.failed
    assert outcome.verdict == "Tests:       1 failed, 11 passed, 12 total"


def test_an_acronym_is_still_a_name() -> None:
    assert prose.identifiers("the AWS-3 API, not A_", 8) == ("AWS-3", "API")
