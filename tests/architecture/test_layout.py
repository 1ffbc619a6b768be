"""The rules of the repository's shape, held by a machine."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = [REPOSITORY / "operator" / "commonplace_operator", REPOSITORY / "runtime" / "commonplace_runtime"]
MODULE_LINES, FUNCTION_LINES = 450, 60


def modules() -> list[Path]:
    return [file for package in PACKAGES for file in sorted(package.rglob("*.py"))]


def named(file: Path) -> str:
    return str(file.relative_to(REPOSITORY))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [program, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": f"{folder / 'operator'}:{folder / 'runtime'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_folder_operator_is_never_a_package() -> None:
    assert not (REPOSITORY / "operator" / "__init__.py").exists(), "it would shadow the standard library's operator"


def test_the_test_folders_are_no_packages() -> None:
    assert list((REPOSITORY / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("runtime/commonplace_runtime/domain/errors.py", "import random", "pure layers"),
        ("runtime/commonplace_runtime/domain/errors.py", "import commonplace_runtime.store.pool", "one way"),
        ("operator/commonplace_operator/errors.py", "import commonplace_runtime.settings", "formula only"),
        ("runtime/commonplace_runtime/scaling.py", "import time", "pure layers"),
        ("runtime/commonplace_runtime/services/tenants.py", "import fastapi", "entrypoints"),
        ("runtime/commonplace_runtime/services/tenants.py", "import asyncpg", "asyncpg"),
        ("runtime/commonplace_runtime/settings.py", "import kubernetes", "nothing of Kubernetes"),
    ],
    ids=lambda value: Path(value).stem if value.endswith(".py") else value,
)
def test_an_import_against_the_grain_is_refused(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(package, tmp_path / package.relative_to(REPOSITORY))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as source:
        source.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    broken = [row for row in done.stdout.splitlines() if "BROKEN" in row]
    assert any(contract in row for row in broken), done.stdout


def test_the_operator_starts_without_what_only_the_runtime_has() -> None:
    """Its image has no numpy and no FastAPI, and of the runtime it imports what needs neither."""
    code = (
        "import importlib, pkgutil, sys; sys.modules.update(dict.fromkeys(('numpy', 'fastapi', 'cyclopts')));"
        "import commonplace_operator as o;"
        "names = [m.name for m in pkgutil.walk_packages(o.__path__, 'commonplace_operator.')];"
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')]; print(len(names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_modules_and_functions_stay_small() -> None:
    too_long = []
    for file in modules():
        text = file.read_text()
        if text.count("\n") > MODULE_LINES:
            too_long.append(f"{named(file)}: {text.count(chr(10))} lines")
        for function in functions(ast.parse(text)):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > FUNCTION_LINES:
                too_long.append(f"{named(file)}:{function.lineno} {function.name}: {length} lines")
    assert too_long == []


def reads_environment(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") for node in ast.walk(tree))


def test_the_environment_is_read_at_the_composition_roots_only() -> None:
    readers = {named(file) for file in modules() if reads_environment(ast.parse(file.read_text()))}
    allowed = {
        "runtime/commonplace_runtime/embedded.py",
        "runtime/commonplace_runtime/entrypoints/cli.py",
        "operator/commonplace_operator/__main__.py",
        "operator/commonplace_operator/settings.py",
    }
    assert readers - allowed == set()


def test_every_module_and_public_function_says_what_it_is_for() -> None:
    silent = []
    for file in modules():
        tree = ast.parse(file.read_text())
        if ast.get_docstring(tree) is None:
            silent.append(named(file))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name[0] != "_" and ast.get_docstring(node) is None:
                silent.append(f"{named(file)}:{node.lineno} {node.name}")
    assert silent == []


def test_the_constraints_name_versions_and_nothing_else() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_every_file_that_the_architecture_page_names_exists() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    paths = re.findall(r"`((?:operator|runtime|crds|e2e|docs|tests)/[\w./-]+\.\w+)`", page)
    assert len(paths) > 20
    assert [path for path in paths if not (REPOSITORY / path).is_file()] == []


def test_every_step_of_the_three_flows_names_a_file() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    flows = re.split(r"^## Flow ", page, flags=re.MULTILINE)[1:]
    assert len(flows) == 3
    for flow in flows:
        steps = re.findall(r"^\| *\d+ *\|.*$", flow, flags=re.MULTILINE)
        assert len(steps) >= 5
        assert [step for step in steps if not re.search(r"`[\w./-]+\.(py|sql|yaml)`", step)] == []
