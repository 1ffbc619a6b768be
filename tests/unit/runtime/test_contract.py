import re
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime import contract

entropy = st.binary(min_size=contract.TOKEN_ENTROPY_BYTES, max_size=contract.TOKEN_ENTROPY_BYTES)


@given(entropy)
def test_every_token_has_the_published_shape_and_a_readable_id(chance: bytes) -> None:
    token = contract.make_token(chance)
    match = re.fullmatch(r"cm_([0-9A-Za-z]{16})_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", token)
    assert match is not None
    assert contract.token_id(token) == match.group(1)


@given(entropy, st.data())
def test_one_mistyped_character_is_noticed(chance: bytes, data: st.DataObject) -> None:
    token = contract.make_token(chance)
    place = data.draw(st.integers(3, len(token) - 1))
    other = data.draw(st.sampled_from("0aZ9").filter(lambda char: char != token[place]))
    assert contract.token_id(token[:place] + other + token[place + 1 :]) is None


@given(entropy, entropy)
def test_different_chance_makes_different_tokens(one: bytes, other: bytes) -> None:
    assert (contract.make_token(one) == contract.make_token(other)) == (one == other)


def test_too_little_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="44 random bytes"):
        contract.make_token(b"short")


@given(st.text())
def test_any_string_can_be_looked_up(token: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", contract.hash_token(token))


def test_the_connect_command_is_one_pasteable_line() -> None:
    command = contract.connect_command(contract.mcp_url("https://memory.example/"), "cm_x")
    assert command == (
        "claude mcp add --transport http commonplace https://memory.example/v1/mcp "
        '--header "Authorization: Bearer cm_x"'
    )


reports = st.builds(
    contract.MigrationReport,
    outcome=st.sampled_from(["migrated", "failed"]),
    reason=st.sampled_from(get_args(contract.MigrationReason)),
    message=st.text(),
    schema_version=st.none() | st.integers(0, 10_000),
    sql=st.text(),
)


@given(reports)
def test_a_short_report_is_read_as_it_was_written(report: contract.MigrationReport) -> None:
    read = contract.MigrationReport.from_json(report.to_json())
    assert read is not None
    assert (read.outcome, read.reason, read.message) == (report.outcome, report.reason, report.message)
    assert (read.schema_version, read.sql.splitlines()) == (report.schema_version, report.sql.splitlines())


@given(reports, st.sampled_from(["x", "ä", "💾", "\x00", "\ud800"]), st.integers(600, 9000))
def test_a_report_fits_a_termination_message_whatever_it_says(
    report: contract.MigrationReport, letter: str, length: int
) -> None:
    long = replace(report, message=letter * length, sql=f"{letter * 60};\n" * (length // 60))
    text = long.to_json()
    assert len(text.encode()) <= contract.REPORT_BYTES
    read = contract.MigrationReport.from_json(text)
    assert read is not None
    assert read.message.startswith(letter * 100)
    assert all(line == f"{letter * 60};" for line in read.sql.splitlines()[:-1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "Traceback (most recent call last):",
        '{"outcome": "migrated"}',
        '{"outcome": "migrated", "reason": "Splendid", "message": "", "schema_version": 1, "sql": ""}',
        '{"outcome": "perhaps", "reason": "Migrated", "message": "", "schema_version": 1, "sql": ""}',
        '{"outcome": "migrated", "reason": "Migrated", "message": 1, "schema_version": 1, "sql": ""}',
        '{"outcome": "migrated", "reason": "Migrated", "message": "", "schema_version": true, "sql": ""}',
        '{"outcome": "migrated", "reason": ["Migrated"], "message": "", "schema_version": 1, "sql": ""}',
        '{"outcome": "migrated", "reason": "Migrated", "message": "", "schema_version": 1, "sql": "", "more": 1}',
    ],
)
def test_anything_else_is_no_report(text: str) -> None:
    assert contract.MigrationReport.from_json(text) is None
