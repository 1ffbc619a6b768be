"""What calls cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain.prices import LIST_PRICES, Price, cost_microusd, listed_name


@pytest.mark.parametrize(
    ("model", "tokens_in", "tokens_out", "microusd"),
    [
        pytest.param("claude-haiku-5-5", 12_000, 800, 1_600, id="haiku"),
        pytest.param("claude-haiku-5-5", 100_000, 0, 10_000, id="still-short"),
        pytest.param("claude-haiku-5-5", 100_001, 1_000, 52_501, id="long-context"),
        pytest.param("claude-haiku-5-5-20261007", 12_000, 800, 1_600, id="dated"),
        pytest.param("gemini-3.1-flash-lite", 10, 1, 4, id="rounded-up"),
        pytest.param("claude-haiku-5-5", 0, 0, 0, id="nothing"),
        pytest.param("unheard-of", 1_000, 100, 30_000, id="unknown-is-ten-times-the-dearest"),
        pytest.param("claude-haiku-5-5-max", 1_000, 100, 30_000, id="another-model-with-a-longer-name"),
    ],
)
def test_a_call_costs_its_list_price(model: str, tokens_in: int, tokens_out: int, microusd: int) -> None:
    assert cost_microusd(model, tokens_in, tokens_out) == microusd


def test_an_own_price_comes_first_and_the_longest_name_wins() -> None:
    prices = {**LIST_PRICES, "m": Price(input=1, output=1), "m-2026": Price(input=0, output=0)}
    assert listed_name("m-2026-0801", prices) == "m-2026"
    assert cost_microusd("m-2026", 10**6, 10**6, prices) == 0


@given(
    model=st.sampled_from([*LIST_PRICES, "unheard-of"]), used=st.tuples(st.integers(0, 10**7), st.integers(0, 10**5))
)
def test_an_unknown_model_costs_far_more_than_any_known_one(model: str, used: tuple[int, int]) -> None:
    known = cost_microusd(model, *used, {**LIST_PRICES, "unheard-of": Price(input=3, output=15)})
    assert cost_microusd("unknown", *used) >= 5 * known >= 0
