"""What model calls cost: list prices, and an administrator's own before them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Price:
    """
    US dollars for a million tokens.

    long_from: a prompt of more tokens than this is charged, in and out, `long_factor` times as much.
    """

    input: float
    output: float
    long_from: int | None = None
    long_factor: float = 1.0


LIST_PRICES_DATE: Final = "2026-10-16"
"""When the list was read off the providers' pages. Tokens read from a cache are charged as if they were not."""

LIST_PRICES: Final[Mapping[str, Price]] = {
    "claude-haiku-5-5": Price(input=0.10, output=0.50, long_from=100_000, long_factor=5.0),
    "claude-haiku-4-5": Price(input=1.0, output=5.0),
    "claude-sonnet-5-5": Price(input=2.0, output=10.0),
    "gemini-3.1-flash-lite": Price(input=0.25, output=1.50),
}

UNKNOWN_FACTOR: Final = 10
"""How much dearer than the dearest known model one without a price may be: dearer ones than those listed are sold."""

# `claude-haiku-5-5-20261007`, `…@20261007`, `gpt-9-2026-10-07`, `…-latest`: the same model at one date.
_DATED = re.compile(r"[-@](\d{3,8}|\d{4}-\d\d-\d\d|latest)")


def listed_name(model: str, prices: Mapping[str, Price]) -> str | None:
    """The name under which a model is priced: its own, or the longest that it only adds a date to; else None."""
    if model in prices:
        return model
    names = [name for name in prices if model.startswith(name) and _DATED.fullmatch(model[len(name) :])]
    return max(names, key=len, default=None)


def cost_microusd(model: str, input_tokens: int, output_tokens: int, prices: Mapping[str, Price] = LIST_PRICES) -> int:
    """
    Millionths of a dollar, rounded up.

    prices: by name, at least one. A model without a price costs UNKNOWN_FACTOR times as much as the dearest one: a
    budget then ends early rather than late.
    """
    if (name := listed_name(model, prices)) is not None:
        return _cost(prices[name], input_tokens, output_tokens)
    return UNKNOWN_FACTOR * max(_cost(price, input_tokens, output_tokens) for price in prices.values())


def _cost(price: Price, input_tokens: int, output_tokens: int) -> int:
    is_long = price.long_from is not None and input_tokens > price.long_from
    # In decimals, as the price was written: 0.1 as a binary fraction would round a whole cent up.
    factor = _exact(price.long_factor) if is_long else Fraction(1)
    return ceil(factor * (_exact(price.input) * input_tokens + _exact(price.output) * output_tokens))


def _exact(number: float) -> Fraction:
    return Fraction(str(number))
