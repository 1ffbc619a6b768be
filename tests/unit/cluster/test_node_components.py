"""What a node is told: files in its own directory, a network of its own, nothing that leaves it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from e2e.cluster import node_components
from e2e.cluster.node_components import (
    COREDNS_IMAGE,
    MOUNT_POINTS,
    PAUSE_IMAGE,
    NodeLayout,
    config_files,
    containerd_config,
    kubelet_arguments,
    kubelet_config,
    mount_commands,
    network_commands,
    network_config,
    node_api_server_arguments,
    node_controllers_arguments,
    node_kubeadm_config,
    proxy_arguments,
    scheduler_arguments,
)
from e2e.cluster.node_supervisor import NodeOrder, import_arguments
from e2e.cluster.processes import Identity

LAYOUT = NodeLayout(state=Path("/state"))
MANIFESTS = list(
    yaml.safe_load_all((Path(node_components.__file__).parent / "manifests" / "node.yaml").read_text(encoding="utf-8"))
)
ARGUMENTS = {
    "kube-apiserver": node_api_server_arguments(LAYOUT),
    "kube-controller-manager": node_controllers_arguments(LAYOUT),
    "kube-scheduler": scheduler_arguments(LAYOUT),
    "kubelet": kubelet_arguments(LAYOUT),
    "kube-proxy": proxy_arguments(LAYOUT),
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_every_file_lies_in_the_state_directory(arguments: Sequence[str]) -> None:
    paths = [value for argument in arguments if (value := argument.partition("=")[2]).startswith("/")]
    assert paths
    assert all(path.startswith("/state/") for path in paths)


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_no_flag_is_given_twice(arguments: Sequence[str]) -> None:
    names = [argument.partition("=")[0] for argument in arguments]
    assert len(names) == len(set(names))


def test_config_files_lie_in_the_state_directory_and_parse() -> None:
    files = config_files(LAYOUT, plugins=Path("/plugins"))
    assert all(path.is_relative_to("/state") for path in files)
    assert json.loads(files[LAYOUT.kubelet_config])["kind"] == "KubeletConfiguration"
    assert {plugin["type"] for plugin in json.loads(json.dumps(network_config()))["plugins"]} == {"bridge", "portmap"}


def test_the_api_server_is_reached_where_the_certificates_say() -> None:
    config = node_kubeadm_config(LAYOUT, version="1.36.3")
    assert "controlPlaneEndpoint: 10.250.0.2:6443" in config
    assert "advertiseAddress: 10.250.0.2" in config
    assert "--advertise-address=10.250.0.2" in ARGUMENTS["kube-apiserver"]


def test_the_images_of_the_sandbox_and_of_coredns_are_those_that_are_loaded() -> None:
    assert f'sandbox = "{PAUSE_IMAGE}"' in containerd_config(LAYOUT, plugins=Path("/plugins"))
    (deployment,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == COREDNS_IMAGE


def test_pods_ask_the_dns_service_that_exists() -> None:
    (service,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Service"]
    assert kubelet_config(LAYOUT)["clusterDNS"] == [service["spec"]["clusterIP"]]


def test_what_would_leave_is_rejected_and_only_after_what_may_stay_is_accepted() -> None:
    rules = [command for command in network_commands() if command[0] == "iptables"]
    for chain in ("OUTPUT", "FORWARD"):
        accept, reject = [rule for rule in rules if chain in rule]
        assert accept[-1] == "ACCEPT"
        assert "10.250.0.0/30,10.244.0.0/16" in accept
        assert reject[-1] == "REJECT"
        assert "-d" not in reject


def test_compiled_in_paths_are_covered_by_directories_of_the_state() -> None:
    binds = {
        command[3]: command[2] for command in mount_commands(LAYOUT, hierarchies=["memory"]) if "--bind" in command
    }
    assert binds.keys() == set(MOUNT_POINTS)
    assert all(source.startswith("/state/over/") for source in binds.values())
    assert len(set(binds.values())) == len(MOUNT_POINTS)
    assert binds["/tmp/hostpath_pv"] == str(LAYOUT.volumes)


def test_cgroup_v1_hierarchies_are_mounted_by_name_with_links_for_joined_ones() -> None:
    commands = mount_commands(LAYOUT, hierarchies=["cpu,cpuacct", "memory", "systemd"])
    assert ("mount", "-t", "cgroup", "-o", "cpu,cpuacct", "cgroup", "/sys/fs/cgroup/cpu,cpuacct") in commands
    assert ("ln", "-s", "cpu,cpuacct", "/sys/fs/cgroup/cpuacct") in commands
    assert ("mount", "-t", "cgroup", "-o", "none,name=systemd", "cgroup", "/sys/fs/cgroup/systemd") in commands


def test_cgroup_v2_moves_the_programs_aside_before_it_enables_controllers() -> None:
    said = [" ".join(command) for command in mount_commands(LAYOUT, hierarchies=None)]
    (moved,) = [index for index, line in enumerate(said) if "cgroup.procs" in line]
    (enabled,) = [index for index, line in enumerate(said) if "subtree_control" in line]
    assert moved < enabled
    assert not any(re.search(r"-t cgroup ", line) for line in said)


def test_the_kubelet_neither_evicts_for_disk_nor_removes_images_that_nobody_could_pull_again() -> None:
    config = kubelet_config(LAYOUT)
    assert config["imageGCHighThresholdPercent"] == 100
    assert isinstance(config["evictionHard"], dict)
    assert config["evictionHard"]["nodefs.available"] == "0%"


def test_an_image_is_loaded_for_the_kubelet() -> None:
    arguments = import_arguments(Path("/bin"), LAYOUT, Path("/app.tar"))
    assert arguments[0] == "/bin/ctr"
    assert arguments[-1] == "/app.tar"
    assert arguments[arguments.index("--namespace") + 1] == "k8s.io"


def test_an_order_for_a_node_survives_the_command_line() -> None:
    order = NodeOrder(
        state="/state",
        programs="/bin",
        version="1.36.3",
        starter=Identity(pid=7, started_ticks=70),
        owner=None,
        crds="/crds",
        containerd="/containerd",
        plugins="/plugins",
        images=("/pause.tar", "/coredns.tar"),
    )
    assert NodeOrder.decode(order.encode()) == order
