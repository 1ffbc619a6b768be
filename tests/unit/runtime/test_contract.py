import re

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
