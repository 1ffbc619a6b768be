"""
Durations in the grammar that the API server accepts for `format: duration`.

That is Go's `time.ParseDuration` first (`1h30m`, `90s`, `1.5h`), and for what it refuses a sum of
amounts with optional blanks and the units d and w besides (`90d`, `2 weeks`).
Source: k8s.io/kube-openapi/pkg/validation/strfmt/duration.go.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

from commonplace_operator.errors import SpecError

_SECONDS: Final[dict[str, Decimal]] = {
    unit: Decimal(seconds)
    for units, seconds in (
        ("ns nano", "0.000000001"),
        ("us µs μs micro", "0.000001"),
        ("ms milli", "0.001"),
        ("s sec", "1"),
        ("m min", "60"),
        ("h hr hour", "3600"),
        ("d day", "86400"),
        ("w wk week", "604800"),
    )
    for unit in units.split()
}
_PART = re.compile(r"\s*([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)\s*([a-zµμ]+)\s*", re.IGNORECASE)


def parse_duration(text: str) -> timedelta:
    """
    Length of `text`, rounded to microseconds. A bare `0` is allowed, as in Go.

    Raises SpecError for anything else that the API server would refuse.
    """
    stripped = text.strip()
    if stripped in {"0", "+0", "-0"}:
        return timedelta(0)
    sign, rest = (-1, stripped[1:]) if stripped.startswith("-") else (1, stripped.removeprefix("+"))
    position, total = 0, Decimal(0)
    while match := _PART.match(rest, position):
        amount, unit = match.groups()
        seconds = _SECONDS.get(unit.lower()) or _SECONDS.get(unit.lower().removesuffix("s"))
        if seconds is None:
            break
        total += Decimal(amount) * seconds
        position = match.end()
    if position == 0 or position != len(rest):
        raise SpecError(f"{text!r} is not a duration such as 90d, 24h or 1h30m")
    return sign * timedelta(microseconds=int(total * 1_000_000))
