"""The databases that are remembered for releases."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from commonplace_operator import errors
from commonplace_operator.reconcile.databases import LIMIT, KnownDatabases, entry_name

PLACE = ("ns", "rt")


class Patches:
    """Notes JSON patches; the rest of a cluster is not asked for."""

    def __init__(self, error: errors.OperatorError | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.error = error

    async def patch(self, _kind: Any, _namespace: str, _name: str, operations: Sequence[dict[str, Any]]) -> Any:
        if self.error:
            raise self.error
        self.sent += operations
        return {}


def known(patches: Patches) -> KnownDatabases:
    return KnownDatabases(patches, namespace="own", secret="s")  # type: ignore[arg-type]


async def test_what_is_kept_is_read_back_and_not_written_again() -> None:
    patches = Patches()
    first = known(patches)
    first.meet(PLACE, "postgresql://a")
    await first.keep(PLACE)
    await first.keep(PLACE)
    assert [operation["op"] for operation in patches.sent] == ["add"]

    again = known(patches)
    again.load({entry_name(PLACE): patches.sent[0]["value"], "mac-key": "aaaa", "database.broken": "!"})
    assert (again.of(PLACE), again.places()) == ("postgresql://a", (PLACE,))
    again.meet(PLACE, "postgresql://a")
    await again.keep(PLACE)
    again.meet(PLACE, "postgresql://b")
    await again.keep(PLACE)
    await again.forget(PLACE)
    assert [operation["op"] for operation in patches.sent] == ["add", "add", "remove"]
    assert json.loads(base64.b64decode(patches.sent[1]["value"]))["uri"] == "postgresql://b"
    assert again.of(PLACE) is None


async def test_many_runtimes_are_bounded_and_a_known_one_is_always_updated() -> None:
    databases = known(Patches())
    for number in range(LIMIT):
        databases.meet(("ns", str(number)), "old")
    databases.meet(("ns", "0"), "new")
    assert databases.of(("ns", "0")) == "new"
    databases.meet(("ns", "one-more"), "new")
    assert sum(databases.of(("ns", str(number))) is not None for number in range(LIMIT)) == LIMIT - 1


async def test_a_secret_that_is_gone_costs_the_durability_only() -> None:
    databases = known(Patches(errors.NotFound("gone")))
    databases.meet(PLACE, "postgresql://a")
    await databases.keep(PLACE)
    assert (databases.of(PLACE), databases.places()) == ("postgresql://a", ())


@pytest.mark.parametrize("place", [("n" * 63, "r" * 253)])
def test_an_entrys_name_fits_into_a_secret(place: tuple[str, str]) -> None:
    assert len(entry_name(place)) <= 253
