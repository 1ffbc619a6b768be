"""Helm as a subprocess, and what it renders as dictionaries."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from charts.generate import REPOSITORY

Json: TypeAlias = dict[str, Any]

HELM: Final = Path(sys.executable).parent / "helm"
OPERATOR: Final = REPOSITORY / "charts" / "commonplace"
TENANCY: Final = REPOSITORY / "charts" / "commonplace-tenancy"
VARIANTS: Final = sorted((OPERATOR / "ci").glob("*-values.yaml"))
EXAMPLES: Final = sorted((TENANCY / "examples").glob("*.yaml"))
_SECONDS: Final = 60.0


class HelmFailed(Exception):
    """Helm said no; the message is what it wrote."""


def run(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Standard output of helm. Raises HelmFailed with its standard error."""
    ended = subprocess.run(
        [HELM, *arguments],
        env=dict(environment or {"PATH": os.defpath, "HOME": "/nonexistent"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if ended.returncode != 0:
        raise HelmFailed(ended.stderr + ended.stdout)
    return ended.stdout


def template(
    chart: Path,
    *files: Path,
    release: str = "commonplace",
    namespace: str = "commonplace-system",
    values: Mapping[str, Any] | None = None,
) -> str:
    """
    The manifests as text.

    files: values files, later ones win. values: more of them, by path (`image.tag`), as anything that JSON can hold.
    """
    given = [argument for file in files for argument in ("--values", str(file))]
    return run("template", release, chart, "--namespace", namespace, *given, *as_arguments(values or {}))


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """`--set-json` for each value by its path."""
    return [word for path, value in values.items() for word in ("--set-json", f"{path}={json.dumps(value)}")]


def documents(text: str) -> list[Json]:
    """The objects of a manifest."""
    return [found for found in yaml.safe_load_all(text) if found]


def of_kind(objects: Iterable[Json], kind: str) -> list[Json]:
    """Those of one kind."""
    return [found for found in objects if found["kind"] == kind]


def one(objects: Iterable[Json], kind: str) -> Json:
    """The only object of a kind."""
    (found,) = of_kind(objects, kind)
    return found
