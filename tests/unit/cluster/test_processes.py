"""Ports that nobody else can take, processes never mistaken for one another, children that go with their parent."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from e2e.cluster.processes import Identity, wait_until
from e2e.cluster.supervisor import Order, reserve_ports


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_reserved_ports_differ_and_are_refused_to_strangers() -> None:
    holders = reserve_ports(8)
    try:
        ports = [holder.getsockname()[1] for holder in holders]
        assert len(set(ports)) == 8
        for port in ports:
            with socket.socket() as stranger, pytest.raises(OSError, match="in use") as refused:
                stranger.bind(("127.0.0.1", port))
            assert refused.value.errno == errno.EADDRINUSE
    finally:
        for holder in holders:
            holder.close()


def test_a_program_that_shares_ports_can_listen_on_a_reserved_one_and_is_reached() -> None:
    (holder,) = reserve_ports(1)
    with holder, socket.socket() as program:
        program.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        program.bind(holder.getsockname())
        program.listen()
        with socket.create_connection(holder.getsockname(), timeout=5) as client:
            accepted, peer = program.accept()
            accepted.close()
            assert peer == client.getsockname()


def test_a_process_is_known_by_its_pid_and_its_start(sleeper: subprocess.Popen[bytes]) -> None:
    identity = Identity.of(sleeper.pid)
    assert identity is not None
    assert identity.is_alive
    another = Identity(pid=identity.pid, started_ticks=identity.started_ticks + 1)
    assert not another.is_alive
    another.end(grace_seconds=0)
    assert identity.is_alive, "a process that merely has the same pid must not be signalled"


def test_a_process_that_ended_is_dead_even_before_anybody_waited_for_it(sleeper: subprocess.Popen[bytes]) -> None:
    identity = Identity.of(sleeper.pid)
    assert identity is not None
    os.kill(sleeper.pid, signal.SIGKILL)
    assert wait_until(lambda: not identity.is_alive, seconds=5)
    assert sleeper.returncode is None


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        identity = Identity.of(stubborn.pid)
        assert identity is not None
        identity.end(grace_seconds=0.1)
        assert not identity.is_alive
        assert stubborn.wait(timeout=5) == -signal.SIGKILL


def test_a_child_goes_with_a_parent_that_is_killed() -> None:
    parent = """
import subprocess, time
from e2e.cluster.processes import dies_with_parent
child = subprocess.Popen(["sleep", "600"], preexec_fn=dies_with_parent())
print(child.pid, flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        child = Identity.of(int(process.stdout.readline()))
        assert child is not None
        process.kill()
        assert wait_until(lambda: not child.is_alive, seconds=5)


def test_an_order_survives_the_command_line() -> None:
    starter = Identity(pid=7, started_ticks=70)
    for owner in (None, Identity(pid=8, started_ticks=80)):
        order = Order(state="/state", programs="/bin", version="1.36.3", starter=starter, owner=owner, crds=None)
        assert Order.decode(order.encode()) == order
