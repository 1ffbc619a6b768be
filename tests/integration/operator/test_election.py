"""Two operator processes: one leads, the other stands by and takes over, whatever happens to the first."""

import asyncio
import contextlib
import json
import os
import re
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from commonplace_runtime.embedded import free_port
from e2e.cluster.control_plane import ControlPlane
from tests.integration.operator.harness import OperatorProcess, World, operator_environment, until
from tests.kubernetes_fixtures import fresh_namespace

SHORT = {"LEASE_DURATION_SECONDS": "3", "RENEW_DEADLINE_SECONDS": "2", "LEASE_RETRY_SECONDS": "0.5"}
# Renewed so seldom that nothing but the database tells such a leader that it leads no more.
LONG = {"LEASE_DURATION_SECONDS": "90", "RENEW_DEADLINE_SECONDS": "80", "LEASE_RETRY_SECONDS": "70"}
LOST = 75


@dataclass(kw_only=True)
class Replica:
    """One of several operator processes."""

    process: OperatorProcess
    port: int

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.process.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    @property
    def term(self) -> int:
        """The term that it has led in, 0 for none."""
        return next((int(line["term"]) for line in self.events("leading")), 0)

    async def leads(self) -> int:
        return int(await until(lambda: self.term, "it leads"))

    async def stands_by(self) -> None:
        await until(lambda: self.events("standing_by"), "it stands by")

    async def lost(self) -> str:
        """Wait until it has ended by itself; why, as it logged."""
        status = await until(lambda: self.process.process.poll(), "it ends by itself")
        assert status == LOST, self.process.log
        return str(self.events("leadership_lost")[0]["detail"])

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.process.wait()

    def fetch(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def figure(self, name: str) -> float:
        """Sum of the metric's samples."""
        found = [line for line in self.fetch("metrics").splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in found)


@dataclass(kw_only=True)
class Lease:
    """The Lease of these operators, as a person with kubectl sees it."""

    world: World
    namespace: str

    @property
    def path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/commonplace-operator-default"

    def body(self) -> dict[str, Any]:
        status, answer = self.world.api.request("GET", self.path)
        assert status == 200, answer
        return dict(answer)

    @property
    def holder(self) -> str:
        return str(self.body()["spec"].get("holderIdentity") or "")

    @property
    def term(self) -> int:
        return int(self.body()["metadata"]["annotations"]["commonplace.dev/term"])

    def patch(self, body: dict[str, Any]) -> None:
        status, answer = self.world.api.request("PATCH", self.path, body, content_type="application/merge-patch+json")
        assert status == 200, answer

    def delete(self) -> None:
        status, answer = self.world.api.request("DELETE", self.path)
        assert status == 200, answer


class Line:
    """A line of its own to the API server, which can go silent: nothing is refused, nothing is answered."""

    def __init__(self, control_plane: ControlPlane, kubeconfig: Path) -> None:
        text = control_plane.kubeconfig.read_text()
        found = re.search(r"server: https://127\.0\.0\.1:(\d+)", text)
        assert found is not None
        self.kubeconfig = kubeconfig
        self._text, self._port = text, int(found.group(1))
        self._is_cut = False
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Line":
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.kubeconfig.write_text(self._text.replace(f"127.0.0.1:{self._port}", f"127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def cut(self) -> None:
        self._is_cut = True

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond_reader, beyond_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, beyond_writer), self._pump(beyond_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self._is_cut:
                writer.write(data)
                await writer.drain()
        writer.close()


Start = Callable[..., Replica]


@pytest.fixture
def own_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """Where these operators keep their Lease and their Secret."""
    yield from fresh_namespace(control_plane)


@pytest.fixture
async def start(control_plane: ControlPlane, own_namespace: str, world: World, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts replicas that serve this test's namespace; with arguments, the crashing or the forgetful one."""
    replicas: list[Replica] = []

    def begin(*crash: str, **settings: str) -> Replica:
        port = free_port()
        special = "forgetful_operator" if crash == ("forgetful",) else "crashing_operator"
        module = f"tests.integration.operator.{special}" if crash else "commonplace_operator"
        crash = () if crash == ("forgetful",) else crash
        wanted = {"LEADER_ELECTION": "true", "WATCH_NAMESPACES": world.namespace, "PORT": str(port)} | SHORT | settings
        kubeconfig = wanted.pop("KUBECONFIG", str(control_plane.kubeconfig))
        environment = operator_environment(control_plane, own_namespace, **wanted) | {"KUBECONFIG": kubeconfig}
        log = tmp_path / f"log-{len(replicas)}"
        replicas.append(Replica(process=OperatorProcess(environment, log, ("-m", module, *crash)), port=port))
        return replicas[-1]

    yield begin
    for replica in replicas:
        if replica.process.process.poll() is None:
            replica.send(signal.SIGCONT)
        replica.process.stop()


@pytest.fixture
def lease(world: World, own_namespace: str) -> Lease:
    return Lease(world=world, namespace=own_namespace)


async def pair(start: Start) -> tuple[Replica, Replica]:
    """A leader, and a standby that watches."""
    leader = start()
    await leader.leads()
    standby = start()
    await standby.stands_by()
    await until(lambda: standby.events("watching"), "the standby watches")
    return leader, standby


async def works(world: World, key: str) -> None:
    """Somebody issues that new key, and its token works."""
    world.key(key)
    await world.ready("ApiKey", key)
    assert await world.works((world.secret(key) or {})["token"])


async def recorded_term(world: World) -> int:
    return int(await world.sql.fetchval("SELECT max(term) FROM commonplace.installations") or 0)


async def test_of_two_replicas_one_works_and_both_are_ready(world: World, start: Start, lease: Lease) -> None:
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await works(world, "key")

    for replica in (leader, standby):
        assert replica.fetch("readyz") == replica.fetch("livez") == "ok\n"
    assert leader.figure("leader_election_master_status") == 1
    assert standby.figure("leader_election_master_status") == 0
    assert standby.figure("controller_runtime_reconcile_total") == 0
    assert standby.figure("workqueue_depth") >= 3
    assert leader.figure("commonplace_operator_lease_writes_total") > 0
    assert 'kind="Lease"' not in leader.fetch("metrics")
    assert lease.term == leader.term == await recorded_term(world)
    assert leader.figure("commonplace_operator_lease_transitions") == lease.body()["spec"]["leaseTransitions"] == 1
    assert standby.process.stop() == 0
    assert lease.term == leader.term


async def test_a_leader_that_is_told_to_stop_hands_over(world: World, start: Start, lease: Lease) -> None:
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await works(world, "first")

    assert leader.process.stop() == 0, leader.process.log

    assert leader.events("lease_released")
    assert await standby.leads() > leader.term
    assert standby.events("leading")[0]["because"] == "nobody holds it"
    await works(world, "second")
    assert await recorded_term(world) == lease.term == standby.term


async def test_work_that_hangs_does_not_keep_a_leader_from_handing_over(world: World, start: Start) -> None:
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")
    async with world.sql.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE commonplace.api_keys IN ACCESS EXCLUSIVE MODE")
        world.key()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%key_v1%'"
        await until(lambda: world.sql.fetchval(waiting), "the leader waits for the database")

        assert leader.process.stop() == 0, leader.process.log

        assert leader.events("lease_released")
        assert await standby.leads() > leader.term
    await world.ready("ApiKey", "key")
    assert [row["term"] for row in await world.rows()] == [standby.term]


async def test_a_leader_that_cannot_renew_ends_before_another_may_lead(
    control_plane: ControlPlane, world: World, start: Start, tmp_path: Path
) -> None:
    async with Line(control_plane, tmp_path / "kubeconfig") as line:
        leader = start(KUBECONFIG=str(line.kubeconfig))
        await leader.leads()
        standby = start()
        await standby.stands_by()

        line.cut()

        assert "not renewed for 2 s" in await leader.lost()
        assert standby.term == 0
    assert await standby.leads() > leader.term
    world.runtime()
    await world.ready("MemoryRuntime", "rt")


async def test_a_killed_leader_is_waited_for_and_succeeded(world: World, start: Start) -> None:
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")

    leader.kill()
    world.key("asked-for-meanwhile")

    assert await standby.leads() > leader.term
    await world.ready("ApiKey", "asked-for-meanwhile")
    assert await recorded_term(world) == standby.term


async def test_a_leader_that_stood_still_ends_when_it_goes_on(world: World, start: Start) -> None:
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")

    leader.send(signal.SIGSTOP)
    await standby.leads()
    await works(world, "key")
    leader.send(signal.SIGCONT)

    why = await leader.lost()
    assert "not renewed for 2 s" in why or "a database refuses our term" in why
    assert await recorded_term(world) == standby.term
    assert await standby.leads() == standby.term
    await works(world, "another")


async def test_a_write_of_a_leader_that_was_succeeded_is_refused_by_the_database(
    world: World, start: Start, lease: Lease
) -> None:
    zombie = start("before", "put_key", "SIGSTOP", **LONG)
    await zombie.leads()
    world.runtime()
    world.team()
    world.key()
    stat = Path(f"/proc/{zombie.process.process.pid}/stat")
    await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it stands still before its write")
    standby = start()
    await standby.stands_by()
    lease.patch({"spec": {"holderIdentity": ""}})
    await standby.leads()
    await world.ready("ApiKey", "key")
    before = await world.rows()

    zombie.send(signal.SIGCONT)

    assert await until(lambda: zombie.process.process.poll(), "it ends by itself") != 0
    assert f"term {zombie.term} of installation" in zombie.process.log
    assert "a database refuses our term" in zombie.process.log
    assert await world.rows() == before
    assert [row["term"] for row in before] == [standby.term]
    assert lease.term == standby.term


async def test_a_leader_whose_lease_is_deleted_ends_and_the_next_term_is_greater(
    world: World, start: Start, lease: Lease
) -> None:
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")

    lease.delete()

    assert await standby.leads() > leader.term
    # Whichever it met first: its next renewal, or a database that the new leader had reached already.
    reasons = ("the Lease was deleted", "leads in term", "a database refuses our term")
    why = await leader.lost()
    assert any(reason in why for reason in reasons), why
    await works(world, "key")
    assert await recorded_term(world) == lease.term == standby.term


async def test_a_stolen_lease_is_taken_back_when_the_thief_is_silent(world: World, start: Start, lease: Lease) -> None:
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")

    lease.patch({"spec": {"holderIdentity": "thief"}})

    assert "the Lease says that thief leads" in await leader.lost()
    assert await standby.leads() > leader.term
    assert standby.events("leading")[0]["because"] == "thief has not renewed it in time"
    await works(world, "key")


async def test_a_label_on_the_lease_changes_nothing(start: Start, lease: Lease) -> None:
    leader, standby = await pair(start)
    version = lease.body()["metadata"]["resourceVersion"]

    lease.patch({"metadata": {"labels": {"team": "platform"}}})

    conflicts = 'commonplace_operator_lease_writes_total{name="commonplace-operator-default",outcome="conflict"}'
    await until(lambda: leader.figure(conflicts) == 1, "the leader has noticed")
    await until(lambda: int(lease.body()["metadata"]["resourceVersion"]) > int(version) + 1, "it renews on")
    assert lease.body()["metadata"]["labels"] == {"team": "platform"}
    assert standby.term == 0
    assert leader.process.process.poll() is None


async def test_a_database_that_knows_a_greater_term_gets_a_leader_with_a_greater_one_still(
    world: World, start: Start, lease: Lease
) -> None:
    """As after the Lease was deleted, and the next leader's clock was behind."""
    leader = start()
    await leader.leads()
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")
    await world.sql.execute("UPDATE commonplace.installations SET term = term + 1000")

    world.key()
    await until(lambda: leader.events("term_refused"), "the refusal is told")
    assert "restart this one" in leader.events("term_refused")[0]["detail"]
    assert leader.process.stop() == 0

    second = start()
    assert await second.leads() > leader.term + 1000
    await world.ready("ApiKey", "key")


async def test_a_database_that_lies_about_the_term_stops_nobody(world: World, start: Start, lease: Lease) -> None:
    """A tenant's own database may say anything; another tenant's keys are issued all the same."""
    leader = start()
    await leader.leads()
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")
    await world.sql.execute("UPDATE commonplace.installations SET term = 9000000000000000000")

    world.key()
    await until(lambda: len(leader.events("term_refused")) > 1, "it is refused again and again")

    assert leader.process.process.poll() is None
    assert lease.holder != ""
    await world.sql.execute("UPDATE commonplace.installations SET term = $1", leader.term)
    await world.ready("ApiKey", "key")
    assert leader.process.stop() == 0
    assert lease.term == leader.term


async def test_without_an_election_a_greater_term_is_told_with_what_to_do(world: World, start: Start) -> None:
    leader = start()
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")
    assert leader.process.stop() == 0

    alone = start(LEADER_ELECTION="false")
    world.key()

    await until(lambda: alone.events("term_refused"), "the refusal is told")
    assert "set COMMONPLACE_OPERATOR_LEADER_ELECTION=true" in alone.events("term_refused")[0]["detail"]
    assert alone.process.stop() == 0
    assert await world.rows() == []


async def test_the_next_leader_knows_what_the_one_before_has_kept(world: World, start: Start) -> None:
    """A standby read the operator's Secret long before the database of this runtime was put into it."""
    leader, standby = await pair(start)
    world.runtime()
    world.team()
    await works(world, "key")
    leader.send(signal.SIGSTOP)
    world.delete("MemoryRuntime", "rt")
    world.delete("Secret", "rt-db")
    world.delete("ApiKey", "key")
    leader.kill()

    await standby.leads()

    await world.gone("ApiKey", "key")
    states = await world.sql.fetch("SELECT state FROM commonplace.api_keys")
    assert [row["state"] for row in states] == ["revoked"]


async def test_a_standby_that_saw_more_than_it_can_keep_misses_nothing(world: World, start: Start) -> None:
    leader = start()
    await leader.leads()
    standby = start("forgetful")
    await standby.stands_by()
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")
    leader.send(signal.SIGSTOP)
    for number in range(5):
        world.key(f"key-{number}")
    await until(lambda: standby.figure("workqueue_depth") == 2, "the standby's queue is full")
    leader.kill()

    await standby.leads()

    for number in range(5):
        await world.ready("ApiKey", f"key-{number}")


async def test_a_killed_operator_that_is_alone_is_succeeded_by_its_next_start(world: World, start: Start) -> None:
    first = start()
    await first.leads()
    first.kill()

    second = start()

    assert await second.leads() > first.term
    world.runtime()
    await world.ready("MemoryRuntime", "rt")
