"""What we rely on of the API server: apply with a uid, create, take-over of fields, preconditions, paging."""

from collections.abc import AsyncIterator

import pytest

from commonplace_operator import errors
from commonplace_operator.children.secret import field_takeover
from commonplace_operator.cluster import KubernetesCluster, load_configuration
from commonplace_operator.resources import names
from e2e.cluster.control_plane import ControlPlane


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[KubernetesCluster]:
    configuration = await load_configuration({"KUBECONFIG": str(control_plane.kubeconfig)})
    found = KubernetesCluster(configuration, timeout=15)
    yield found
    await found.close()


def config_map(namespace: str, name: str = "m", **more: object) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": namespace}, **more}


MAPS = names.Kind(kind="ConfigMap", plural="configmaps", api_version="v1")


async def test_an_apply_with_a_uid_creates_nothing_that_is_gone(cluster: KubernetesCluster, namespace: str) -> None:
    made = await cluster.create(MAPS, config_map(namespace))
    await cluster.delete(MAPS, namespace, "m", uid=made["metadata"]["uid"])

    body = config_map(namespace)
    body["metadata"] = {"name": "m", "namespace": namespace, "uid": made["metadata"]["uid"]}
    with pytest.raises((errors.Conflict, errors.NotFound)):
        await cluster.apply(MAPS, body)
    with pytest.raises(errors.NotFound):
        await cluster.get(MAPS, namespace, "m")


async def test_an_apply_over_another_resource_version_is_refused(cluster: KubernetesCluster, namespace: str) -> None:
    made = await cluster.create(MAPS, config_map(namespace, data={"a": "1"}))
    await cluster.patch(MAPS, namespace, "m", [{"op": "replace", "path": "/data/a", "value": "2"}])

    body = config_map(namespace, data={"a": "3"})
    body["metadata"] = {k: made["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion")}
    with pytest.raises(errors.Conflict):
        await cluster.apply(MAPS, body)


async def test_a_second_create_is_refused(cluster: KubernetesCluster, namespace: str) -> None:
    await cluster.create(MAPS, config_map(namespace))
    with pytest.raises(errors.Conflict):
        await cluster.create(MAPS, config_map(namespace))


async def test_a_delete_of_another_uid_is_refused(cluster: KubernetesCluster, namespace: str) -> None:
    await cluster.create(MAPS, config_map(namespace))
    with pytest.raises(errors.Conflict):
        await cluster.delete(MAPS, namespace, "m", uid="00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize("taken", [True, False])
async def test_only_after_the_takeover_an_apply_drops_what_create_wrote(
    cluster: KubernetesCluster, namespace: str, taken: bool
) -> None:
    made = await cluster.create(MAPS, config_map(namespace, data={"a": "1", "b": "2"}))
    if taken:
        await cluster.patch(MAPS, namespace, "m", field_takeover(made))

    after = await cluster.apply(MAPS, config_map(namespace, data={"a": "1"}))

    assert after["data"] == ({"a": "1"} if taken else {"a": "1", "b": "2"})
    assert bool(field_takeover(after)) is not taken


async def test_a_list_has_every_page(
    cluster: KubernetesCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commonplace_operator.cluster.PAGE_SIZE", 2)
    for number in range(5):
        await cluster.create(MAPS, config_map(namespace, f"m{number}"))

    found = await cluster.list(MAPS, namespace, field_selector="metadata.name!=kube-root-ca.crt")

    assert [body["metadata"]["name"] for body in found] == [f"m{number}" for number in range(5)]


async def test_an_absent_server_is_unavailable(control_plane: ControlPlane) -> None:
    configuration = await load_configuration({"KUBECONFIG": str(control_plane.kubeconfig)})
    configuration.host = "https://127.0.0.1:1"
    away = KubernetesCluster(configuration, timeout=2)
    with pytest.raises(errors.ClusterUnavailable):
        await away.get(names.NAMESPACE, None, "default")
    await away.close()


async def test_what_the_server_says_about_a_secrets_content_is_not_repeated(
    cluster: KubernetesCluster, namespace: str
) -> None:
    body = {"metadata": {"name": "s", "namespace": namespace}, "data": {"token": "not base64: hunter2"}}
    with pytest.raises(errors.OperatorError) as caught:
        await cluster.create(names.SECRET, body)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
