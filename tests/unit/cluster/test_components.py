"""Command lines: loopback only, no shared port, every file in the state directory."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from e2e.cluster.components import (
    Layout,
    Ports,
    api_server_arguments,
    controllers_arguments,
    etcd_arguments,
    kubeadm_config,
)

LAYOUT = Layout(state=Path("/state"))
PORTS = Ports(api=1001, etcd=1002, etcd_peer=1003, controllers=1004)
ALL = {
    "etcd": etcd_arguments(LAYOUT, PORTS),
    "kube-apiserver": api_server_arguments(LAYOUT, PORTS),
    "kube-controller-manager": controllers_arguments(LAYOUT, PORTS),
}


@pytest.mark.parametrize("arguments", ALL.values(), ids=ALL)
def test_nothing_is_bound_or_dialled_but_loopback(arguments: Sequence[str]) -> None:
    addresses = {found for argument in arguments for found in re.findall(r"\d+\.\d+\.\d+\.\d+", argument)}
    never_dialled = {"10.255.255.1", "10.96.0.0"}
    assert addresses - never_dialled == {"127.0.0.1"}


@pytest.mark.parametrize("arguments", ALL.values(), ids=ALL)
def test_every_file_lies_in_the_state_directory(arguments: Sequence[str]) -> None:
    paths = [value for argument in arguments if (value := argument.partition("=")[2]).startswith("/")]
    assert paths
    assert all(path.startswith("/state/") for path in paths)


def test_etcd_wants_certificates_from_its_clients_because_loopback_is_open_to_every_user() -> None:
    joined = " ".join(ALL["etcd"])
    assert "http://" not in joined
    assert "--client-cert-auth" in ALL["etcd"]
    assert "--peer-client-cert-auth" in ALL["etcd"]


def test_each_port_is_bound_by_the_one_program_that_it_was_reserved_for() -> None:
    assert "--secure-port=1001" in ALL["kube-apiserver"]
    assert "--etcd-servers=https://127.0.0.1:1002" in ALL["kube-apiserver"]
    assert "--listen-client-urls=https://127.0.0.1:1002" in ALL["etcd"]
    assert "--listen-peer-urls=https://127.0.0.1:1003" in ALL["etcd"]
    assert "--secure-port=1004" in ALL["kube-controller-manager"]


def test_every_program_shares_its_port_with_the_socket_that_reserves_it() -> None:
    assert "--socket-reuse-port" in ALL["etcd"]
    assert "--permit-port-sharing" in ALL["kube-apiserver"]
    assert "--permit-port-sharing" in ALL["kube-controller-manager"]


def test_kubeadm_issues_for_the_chosen_version_and_port() -> None:
    config = kubeadm_config(LAYOUT, version="1.36.3", ports=PORTS)
    assert "kubernetesVersion: v1.36.3" in config
    assert "controlPlaneEndpoint: 127.0.0.1:1001" in config
    assert 'certificatesDir: "/state/pki"' in config
