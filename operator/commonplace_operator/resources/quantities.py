"""
Kubernetes quantities such as `5Gi`, `500M` or `1e3`, as whole numbers.

Source: k8s.io/apimachinery/pkg/api/resource/quantity.go; fractions round up, as there.
"""

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

from commonplace_operator.errors import SpecError

_FACTORS: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(["k", "M", "G", "T", "P", "E"], start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]i?|Ki)?)")


def exact_quantity(value: str | int) -> Decimal:
    """Units in `value`, fractions and all. Raises SpecError for what the API server would refuse."""
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None or (match.group(3) or "") not in _FACTORS:
        raise SpecError(f"{value!r} is not a quantity such as 5Gi or 500M")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _FACTORS[suffix or ""]


def parse_quantity(value: str | int) -> int:
    """Whole units (bytes for storage) in `value`. Raises SpecError for what the API server would refuse."""
    return int(exact_quantity(value).to_integral_value(rounding=ROUND_CEILING))


def same_quantity(one: object, other: object) -> bool:
    """Whether both are quantities of the same amount: the API server writes `1000m` as `1`."""
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    if not isinstance(one, str | int) or not isinstance(other, str | int):
        return False
    try:
        return exact_quantity(one) == exact_quantity(other)
    except SpecError:
        return False
