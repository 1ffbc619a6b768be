"""Whether an object already says what we would apply, so that nothing is written where nothing changes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from commonplace_operator.resources.quantities import same_quantity

_KEYS: Final = ("name", "uid", "type", "containerPort", "port", "key", "topologyKey")
_OF_QUANTITIES: Final = frozenset({"requests", "limits"})


def says_all(live: Any, wanted: Any) -> bool:
    """
    Whether `live` holds every field of `wanted`; what others added to it is theirs.

    Entries of lists are found by their name, port or the like, else by their place. Quantities are compared by what
    they amount to, and an empty map or list may be absent: the API server leaves many of them out. Otherwise a false
    "no" costs one apply that changes nothing, and there is no false "yes".
    """
    return _says_all(live, wanted, of_quantities=False)


def _says_all(live: Any, wanted: Any, *, of_quantities: bool) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(_says(live, key, wanted[key], of_quantities) for key in wanted)
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return isinstance(live, Sequence) and not isinstance(live, str) and _list_says_all(live, wanted)
    is_same = type(live) is type(wanted) and live == wanted
    return is_same or (of_quantities and same_quantity(live, wanted))


def _says(live: Mapping[str, Any], key: str, wanted: Any, of_quantities: bool) -> bool:
    if key not in live:
        return not isinstance(wanted, str) and isinstance(wanted, Mapping | Sequence) and not wanted
    return _says_all(live[key], wanted, of_quantities=of_quantities or key in _OF_QUANTITIES)


def _list_says_all(live: Sequence[Any], wanted: Sequence[Any]) -> bool:
    if len(live) < len(wanted):
        return False
    key = next((key for key in _KEYS if all(isinstance(entry, Mapping) and key in entry for entry in wanted)), None)
    if key is None or len({str(entry[key]) for entry in wanted}) < len(wanted):
        return len(live) == len(wanted) and all(says_all(a, b) for a, b in zip(live, wanted, strict=True))
    known = {str(entry.get(key)): entry for entry in live if isinstance(entry, Mapping)}
    return all(says_all(known.get(str(entry[key])), entry) for entry in wanted)
