"""The upper layers: a virtual environment at /opt/commonplace with the dependencies, and our own wheel."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from e2e.cluster.cache import ClusterError, Report, cache_root, file_lock
from e2e.cluster.images import Entry, File, Link, Tree, write_layer
from e2e.images import steps
from e2e.images.base import Base
from e2e.images.recipe import (
    GLIBC_MINOR,
    HOME,
    ON_PATH,
    POSTGRES_PROGRAMS,
    PYTHON,
    PYTHON_FULL,
    REPOSITORY,
    SITE,
    UNUSED,
    Recipe,
    build_requirements,
    checksum,
    dependencies_checksum,
    requirements,
)

_ADVICE: Final = "check that pip reaches its package index"
_PIP: Final = f"""
import sys
from pip._vendor.packaging import markers
target = markers.default_environment() | dict(python_version="{PYTHON}", python_full_version="{PYTHON_FULL}")
markers.default_environment = lambda: target
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""pip that asks the image's Python, not its own, whether a package is wanted (`; python_full_version < "3.11.3"`)."""
_COMMAND: Final = f"""\
#!/{HOME}/bin/python
import sys
from commonplace_runtime.__main__ import main
sys.exit(main())
"""
_PYVENV: Final = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON_FULL}\n"


def ensure_dependencies(recipe: Recipe, base: Base, report: Report) -> Path:
    """The layer of the virtual environment with everything but ourselves; minutes the first time."""
    tar = cache_root() / "images" / f"{recipe.name}-dependencies-{dependencies_checksum(recipe)}.tar"
    with file_lock(tar.with_suffix(".lock")):
        if not tar.exists():
            with _workplace(base) as place:
                site = place / SITE
                command = [sys.executable, "-c", _PIP, "install", "--no-compile", "--target", str(site), *_for_target()]
                wanted = requirements(REPOSITORY / "pyproject.toml", recipe.extras)
                command += ["--constraint", str(REPOSITORY / "constraints.txt"), *wanted]
                what = f"dependencies of the {recipe.name}"
                usually = "one to three minutes the first time"
                steps.run(command, report, what=what, usually=usually, advice=_ADVICE)
                for name in UNUSED:
                    shutil.rmtree(site / name, ignore_errors=True)
                _compile(base, place, report)
                write_layer(tar, *_environment(place), Tree(place / HOME, HOME))
    return tar


def own_layer(recipe: Recipe, wheel: Path, base: Base, out: Path, report: Report) -> None:
    """Write the layer with our own code, out of our wheel."""
    with _workplace(base) as place:
        site = place / SITE
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        _compile(base, place, report)
        script = [File(_COMMAND.encode(), f"{HOME}/bin/commonplace", 0o755)] if recipe.has_command else []
        write_layer(out, *script, Tree(site, SITE))


def build_wheel(folder: Path, report: Report) -> Path:
    """Build the wheel of this repository into `folder`, in seconds: what builds it is kept in the cache."""
    wanted = build_requirements(REPOSITORY / "pyproject.toml")
    tools = cache_root() / "images" / f"build-{checksum([wanted, sys.version])}"
    pip = [sys.executable, "-m", "pip"]
    with file_lock(tools.with_suffix(".lock")):
        if not tools.exists():
            with tempfile.TemporaryDirectory(dir=tools.parent) as name:
                command = [*pip, "install", "--target", f"{name}/tools", *wanted]
                steps.run(command, report, what="tools for the wheel", usually="half a minute", advice=_ADVICE)
                Path(name, "tools").rename(tools)
    command = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    steps.run(command, report, what="our wheel", usually="seconds", advice="see its words", environment=environment)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _compile(base: Base, place: Path, report: Report) -> None:
    base.compile(place / SITE, report, strip=f"/{place.relative_to(base.root)}")


def _environment(place: Path) -> Sequence[Entry]:
    """What makes a directory a virtual environment, and the programs of Postgres where that is inside."""
    entries: list[Entry] = [File(_PYVENV.encode(), f"{HOME}/pyvenv.cfg")]
    entries += [Link(f"/usr/bin/python{PYTHON}", f"{HOME}/bin/{name}") for name in ("python", "python3")]
    if (place / POSTGRES_PROGRAMS).exists():
        entries += [Link(f"/{POSTGRES_PROGRAMS}/{program}", f"{HOME}/bin/{program}") for program in ON_PATH]
    return entries


def _for_target() -> Sequence[str]:
    """pip's words for the image's Python and C library instead of its own."""
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 4, -1)]
    tags += [f"{tag}_{machine}" for tag in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON_FULL, *platforms]


@contextmanager
def _workplace(base: Base) -> Iterator[Path]:
    """A directory inside the root, where its Python can be called."""
    try:
        with tempfile.TemporaryDirectory(dir=base.root / "build") as name:
            place = Path(name)
            place.chmod(0o755)
            yield place
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"the layers cannot be made below {base.root}: {error}") from error
