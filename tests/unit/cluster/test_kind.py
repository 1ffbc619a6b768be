"""kind: names that do not collide, and what the reader is told when there is no Docker or no image."""

from pathlib import Path

import pytest
import yaml

from e2e.cluster import kind
from e2e.cluster.cache import ClusterError
from e2e.cluster.kind import CONFIG, KindOrder, require_docker
from e2e.cluster.processes import Identity


def test_the_autoscaler_looks_every_second() -> None:
    config = yaml.safe_load(CONFIG)
    cluster, kubelet = (yaml.safe_load(patch) for patch in config["kubeadmConfigPatches"])
    arguments = {argument["name"]: argument["value"] for argument in cluster["controllerManager"]["extraArgs"]}
    assert arguments["horizontal-pod-autoscaler-sync-period"] == "1s"
    assert kubelet["failCgroupV1"] is False


def test_names_follow_the_directory_and_suit_kind() -> None:
    names = [kind._name_for(Path("/tmp", name)) for name in ("commonplace-cluster-a_B1", "commonplace-cluster-x2")]
    assert len(set(names)) == 2
    assert all(name.replace("-", "").isalnum() and name == name.lower() for name in names)


def test_without_docker_the_other_way_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="CLUSTER=node"):
        require_docker()


def test_without_an_engine_dockers_own_words_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho Cannot connect >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"no Docker engine answers .*Cannot connect.*DOCKER_HOST"):
        require_docker()


def test_an_image_that_cannot_be_pulled_has_advice_of_its_own() -> None:
    assert "CLUSTER=node" in kind._advice_for('ERROR: failed to create cluster: failed to pull image "x"')


def test_an_order_for_kind_survives_the_command_line() -> None:
    order = KindOrder(
        state="/state",
        programs="/bin",
        version="0.33.0",
        starter=Identity(pid=7, started_ticks=70),
        owner=Identity(pid=8, started_ticks=80),
        crds=None,
        kind="/bin/kind",
        name="commonplace-x",
        image="",
    )
    assert KindOrder.decode(order.encode()) == order
