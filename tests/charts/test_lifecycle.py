"""helm install, upgrade, uninstall and install again, on a real API server."""

import shutil
from pathlib import Path

import yaml

from e2e.cluster.control_plane import ControlPlane
from tests.charts import helm
from tests.charts.conftest import RELEASE, SYSTEM, read
from tests.charts.helm import Json

NAMES = ("memoryruntimes", "memoryteams", "apikeys", "memoryquotas")


def crds(plane: ControlPlane) -> dict[str, Json]:
    names = [f"{plural}.commonplace.dev" for plural in NAMES]
    return {found["metadata"]["name"]: found for found in read(plane, "customresourcedefinitions", *names)["items"]}


def uids(objects: dict[str, Json]) -> dict[str, str]:
    return {name: found["metadata"]["uid"] for name, found in objects.items()}


def deployment(plane: ControlPlane) -> Json:
    found: Json = read(plane, "deployment", "commonplace-operator", "--namespace", SYSTEM)
    return found


def fields(crd: Json) -> set[str]:
    return set(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])


def older_chart(folder: Path) -> Path:
    """The chart as a release before spec.monitoring would have been."""
    chart = folder / "commonplace"
    shutil.copytree(helm.OPERATOR, chart)
    file = chart / "files" / "crds" / "memoryruntimes.yaml"
    crd = yaml.safe_load(file.read_text())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["monitoring"]
    # As in the file, metadata stands in a block of its own.
    file.write_text(yaml.safe_dump(crd, sort_keys=False, width=1000))
    return chart


def test_an_upgrade_renews_the_kinds_and_an_uninstall_keeps_them_with_the_objects(
    plane: ControlPlane, release: str, namespace: str, tmp_path: Path
) -> None:
    def do(verb: str, *more: str | Path) -> None:
        helm.run(verb, release, *more, "--namespace", SYSTEM, environment=plane.environment())

    example = helm.TENANCY / "examples" / "external.yaml"
    helm.run(
        "install",
        "tenancy",
        helm.TENANCY,
        "--values",
        example,
        "--namespace",
        namespace,
        environment=plane.environment(),
    )
    first = uids(crds(plane))
    runtime = read(plane, "memoryruntime", "main", "--namespace", namespace)["metadata"]["uid"]
    before = deployment(plane)

    do("upgrade", older_chart(tmp_path))
    assert "monitoring" not in fields(crds(plane)["memoryruntimes.commonplace.dev"])
    do("upgrade", helm.OPERATOR, "--set", "image.tag=0.1.1,replicas=3")

    assert "monitoring" in fields(crds(plane)["memoryruntimes.commonplace.dev"])
    assert uids(crds(plane)) == first
    after = deployment(plane)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert after["spec"]["replicas"] == 3

    do("uninstall")
    assert read(plane, "deployments", "--namespace", SYSTEM)["items"] == []
    assert read(plane, "clusterroles", "--selector", "app.kubernetes.io/part-of=commonplace")["items"] == []
    assert uids(crds(plane)) == first
    assert read(plane, "memoryruntime", "main", "--namespace", namespace)["metadata"]["uid"] == runtime

    do("install", helm.OPERATOR)
    assert uids(crds(plane)) == first
    assert read(plane, "memoryruntime", "main", "--namespace", namespace)["metadata"]["uid"] == runtime
    helm.run("uninstall", "tenancy", "--namespace", namespace, environment=plane.environment())


def test_an_upgrade_with_the_same_values_changes_nothing(plane: ControlPlane, release: str) -> None:
    before = deployment(plane)["metadata"]["generation"]
    helm.run("upgrade", release, helm.OPERATOR, "--namespace", SYSTEM, environment=plane.environment())
    assert deployment(plane)["metadata"]["generation"] == before


def test_a_release_may_keep_its_objects_when_it_goes(plane: ControlPlane, release: str, namespace: str) -> None:
    assert release == RELEASE
    example = helm.TENANCY / "examples" / "external.yaml"
    given = ("--values", example, "--set", "keep=true", "--namespace", namespace)
    helm.run("install", "kept", helm.TENANCY, *given, environment=plane.environment())
    helm.run("uninstall", "kept", "--namespace", namespace, environment=plane.environment())

    left = read(plane, "memoryruntimes,memoryteams,apikeys", "--namespace", namespace)["items"]
    assert sorted(found["kind"] for found in left) == ["ApiKey", "MemoryRuntime", "MemoryTeam"]
