"""The elector beside its Lease: liveness, the fence before each write, and the settings that go together."""

import asyncio
import inspect

import pytest

from commonplace_operator import errors
from commonplace_operator.cluster import Cluster
from commonplace_operator.engine.election import Alone, Elector, LeaseTimings
from commonplace_operator.engine.lease import Body
from commonplace_operator.engine.metrics import Metrics
from commonplace_operator.fencing import FencedCluster
from commonplace_operator.settings import Settings, SettingsError
from tests.unit.operator.factories import NOW

TIMINGS = LeaseTimings(duration=15, renew_deadline=10, retry=2)


class SilentLeases:
    """An API server that never answers."""

    def __init__(self) -> None:
        self.was_asked = asyncio.Event()

    async def get(self) -> Body | None:
        self.was_asked.set()
        await asyncio.Event().wait()
        return None

    async def create(self, body: Body) -> Body:
        return body

    async def update(self, body: Body) -> Body:
        return body


async def test_an_election_that_is_stuck_shows() -> None:
    leases = SilentLeases()
    now = [100.0]
    elector = Elector(
        leases,
        namespace="ns",
        name="l",
        identity="me",
        timings=TIMINGS,
        term_annotation="t",
        metrics=Metrics(),
        clock=lambda: NOW,
        monotonic=lambda: now[0],
    )
    assert elector.is_alive()
    task = asyncio.create_task(elector.run())
    async with asyncio.timeout(5):
        await leases.was_asked.wait()
    assert elector.is_alive()

    now[0] += 31

    assert not elector.is_alive()
    with pytest.raises(errors.Superseded):
        elector.term()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_whoever_is_alone_leads_in_term_0() -> None:
    alone = Alone(hint="")
    assert alone.leading.is_set()
    assert alone.term() == 0


WRITES = [name for name, _ in inspect.getmembers(Cluster, inspect.isfunction) if name[0] != "_"]


class Untouched:
    """A cluster on which nothing may be called."""


@pytest.mark.parametrize("verb", [name for name in WRITES if name not in ("get", "list")])
async def test_no_write_is_sent_without_a_lease(verb: str) -> None:
    def refuse() -> int:
        raise errors.Superseded("over")

    fenced = FencedCluster(Untouched(), term=refuse)  # type: ignore[arg-type]
    write = getattr(fenced, verb)
    needed = [p for p in inspect.signature(write).parameters.values() if p.default is p.empty]
    positional = [None for p in needed if p.kind is not p.KEYWORD_ONLY]
    named = {p.name: None for p in needed if p.kind is p.KEYWORD_ONLY}
    with pytest.raises(errors.Superseded):
        await write(*positional, **named)


def test_the_settings_of_the_lease_have_to_be_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONPLACE_OPERATOR_LEASE_DURATION_SECONDS", "8")
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment()
    message = str(raised.value)
    assert "COMMONPLACE_OPERATOR_RENEW_DEADLINE_SECONDS (10)" in message
    assert "COMMONPLACE_OPERATOR_LEASE_DURATION_SECONDS (8)" in message
    assert "COMMONPLACE_OPERATOR_:" not in message
