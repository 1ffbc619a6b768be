"""The operator as a process: settings, start without a cluster, stop, health, logs."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from commonplace_runtime.embedded import free_port
from e2e.cluster.control_plane import ControlPlane
from tests.integration.operator.harness import OperatorProcess, operator_environment, until


def begin(environment: dict[str, str], tmp_path: Path) -> OperatorProcess:
    return OperatorProcess(environment, tmp_path / "log", ("-m", "commonplace_operator"))


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
        return str(answer.read().decode())


def test_bad_settings_are_all_named_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"COMMONPLACE_OPERATOR_WORKERS": "many", "COMMONPLACE_OPERATOR_PORT": "-1"}

    ended = subprocess.run(
        [sys.executable, "-m", "commonplace_operator"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 78
    assert "COMMONPLACE_OPERATOR_WORKERS" in ended.stderr
    assert "COMMONPLACE_OPERATOR_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_kubeconfig_is_a_clear_line(tmp_path: Path) -> None:
    process = begin(os.environ | {"KUBECONFIG": str(tmp_path / "none")}, tmp_path)

    assert process.process.wait(30) == 78
    assert "set KUBECONFIG" in process.log
    assert "Traceback" not in process.log


async def test_an_absent_api_server_is_waited_for_with_clear_lines(
    control_plane: ControlPlane, operator_namespace: str, tmp_path: Path
) -> None:
    config = tmp_path / "kubeconfig"
    text = control_plane.kubeconfig.read_text()
    server = next(line for line in text.splitlines() if "server:" in line)
    config.write_text(text.replace(server, f"    server: https://127.0.0.1:{free_port()}"))
    environment = operator_environment(control_plane, operator_namespace) | {"KUBECONFIG": str(config)}
    process = begin(environment, tmp_path)

    await until(lambda: process.log.count("waiting_for_cluster") >= 2, "two attempts")
    started = time.monotonic()
    status = process.stop()

    assert status == 0, process.log
    assert time.monotonic() - started < 5
    assert "ClientConnectorError" in process.log
    assert "Traceback" not in process.log


async def test_an_api_server_that_hangs_does_not_keep_it_from_stopping(
    control_plane: ControlPlane, operator_namespace: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = tmp_path / "kubeconfig"
        text = control_plane.kubeconfig.read_text()
        server = next(line for line in text.splitlines() if "server:" in line)
        config.write_text(text.replace(server, f"    server: https://127.0.0.1:{silent.getsockname()[1]}"))
        environment = operator_environment(control_plane, operator_namespace) | {"KUBECONFIG": str(config)}
        process = begin(environment, tmp_path)
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            started = time.monotonic()
            status = process.stop()

    assert status == 0, process.log
    assert time.monotonic() - started < 3


async def test_it_answers_probes_and_stops_within_five_seconds(
    control_plane: ControlPlane, operator_namespace: str, tmp_path: Path
) -> None:
    port = free_port()
    environment = operator_environment(control_plane, operator_namespace, PORT=str(port), WATCH_NAMESPACES="none-such")
    process = begin(environment, tmp_path)
    await until(lambda: "watching" in process.log, "the start")

    for path in ("healthz", "livez", "readyz"):
        assert fetch(port, path) == "ok\n"
    metrics = fetch(port, "metrics")
    started = time.monotonic()
    status = process.stop()

    assert 'workqueue_depth{name="commonplace"} 0.0' in metrics
    assert "controller_runtime_reconcile_total" in metrics
    assert status == 0, process.log
    assert time.monotonic() - started < 5
    for line in process.log.splitlines():
        json.loads(line)


async def test_an_absent_own_namespace_is_named(
    control_plane: ControlPlane, operator_namespace: str, tmp_path: Path
) -> None:
    process = begin(operator_environment(control_plane, "not-there"), tmp_path)

    await until(lambda: "namespace not-there does not exist" in process.log, "the reason")
    assert process.stop() == 0
