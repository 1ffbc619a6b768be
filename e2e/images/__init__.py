"""
The images of operator and runtime as files, without Docker and without a registry of images.

Three layers each: Debian with Python, the dependencies, our own wheel. The first two are kept in the user's cache
under the checksum of what decides them, so a change of our code makes a small layer anew, in seconds.
`runtime/Dockerfile` and `operator/Dockerfile` are the ordinary way; both lay things out alike.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from commonplace_runtime import contract
from e2e.cluster.cache import Report, cache_root, file_lock
from e2e.cluster.images import Layer, write_image
from e2e.images.base import ensure_base
from e2e.images.environment import build_wheel, ensure_dependencies, own_layer
from e2e.images.recipe import ENVIRONMENT, OPERATOR, RUNTIME, USER_ID, Recipe, image_checksum

_KEPT: Final = 4
"""Archives of one image that stay in the cache: other working copies may be using theirs."""


def ensure_images(report: Report) -> Sequence[Path]:
    """Archives of the operator's and the runtime's image, made first if need be. Raises ClusterError."""
    return [ensure_image(recipe, report) for recipe in (OPERATOR, RUNTIME)]


def ensure_image(recipe: Recipe, report: Report) -> Path:
    """The archive of one image; its name tells what it was made from, so it is never stale."""
    folder = cache_root() / "images"
    out = folder / f"{recipe.name}-{contract.VERSION}-{image_checksum(recipe)}.tar"
    with file_lock(folder / f"{recipe.name}.lock", waiting=lambda: report(f"another run makes {recipe.tag}: waiting")):
        if not out.exists():
            started = time.monotonic()
            _make(recipe, out, report)
            report(f"{recipe.tag} made in {time.monotonic() - started:.0f} s: {out}")
        out.touch()
        archives = sorted(folder.glob(f"{recipe.name}-{contract.VERSION}-*.tar"), key=lambda tar: tar.stat().st_mtime)
        for old in archives[:-_KEPT]:
            old.unlink()
    return out


def _make(recipe: Recipe, out: Path, report: Report) -> None:
    base = ensure_base(report)
    dependencies = ensure_dependencies(recipe, base, report)
    with tempfile.TemporaryDirectory(dir=out.parent) as directory:
        own = Path(directory) / "own.tar"
        own_layer(recipe, build_wheel(Path(directory), report), base, own, report)
        write_image(
            out,
            tags=[recipe.tag],
            layers=[Layer.from_tar(tar) for tar in (base.tar, dependencies, own)],
            entrypoint=recipe.entrypoint,
            env=ENVIRONMENT,
            user=f"{USER_ID}:{USER_ID}",
            labels={
                "org.opencontainers.image.title": recipe.title,
                "org.opencontainers.image.version": contract.VERSION,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        )
        sizes = ", ".join(
            f"{name} {tar.stat().st_size / 1e6:.1f} MB"
            for name, tar in (("Debian and Python", base.tar), ("dependencies", dependencies), ("ourselves", own))
        )
        report(f"{recipe.tag}: {sizes}")
