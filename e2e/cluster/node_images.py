"""The images that a node starts with, and those that stories load into it, made from programs built here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from e2e.cluster.cache import Report, cache_root, file_lock
from e2e.cluster.gobuild import GoProgram, ensure_program
from e2e.cluster.images import Directory, File, Layer, write_image
from e2e.cluster.node_components import COREDNS_IMAGE, PAUSE_IMAGE
from e2e.cluster.programs import COREDNS, PAUSE, PROMETHEUS, PROMETHEUS_ADAPTER

PROMETHEUS_IMAGE: Final = "localhost/commonplace-e2e/prometheus:1"
PROMETHEUS_ADAPTER_IMAGE: Final = "localhost/commonplace-e2e/prometheus-adapter:1"
NOBODY: Final = "65534:65534"


def node_image_tars(report: Report) -> Sequence[Path]:
    """Archives of `PAUSE_IMAGE` and `COREDNS_IMAGE`."""
    return (
        _image_of(PAUSE, PAUSE_IMAGE, report, user="65535:65535"),
        # It binds port 53, which only root may in its image: the container keeps that one capability.
        _image_of(COREDNS, COREDNS_IMAGE, report, user="0:0"),
    )


def prometheus_image_tar(report: Report) -> Path:
    """
    An archive of `PROMETHEUS_IMAGE`: entrypoint `/prometheus`, as nobody, without a user interface.

    Give it `--config.file=…` and an emptyDir as `--storage.tsdb.path=…`.
    """
    return _image_of(PROMETHEUS, PROMETHEUS_IMAGE, report)


def prometheus_adapter_image_tar(report: Report) -> Path:
    """
    An archive of `PROMETHEUS_ADAPTER_IMAGE`: entrypoint `/adapter`, as nobody.

    Give it `--config=…`, `--prometheus-url=…`, `--secure-port=…` and an emptyDir as `--cert-dir=…`.
    """
    return _image_of(PROMETHEUS_ADAPTER, PROMETHEUS_ADAPTER_IMAGE, report)


def _image_of(program: GoProgram, tag: str, report: Report, *, user: str = NOBODY) -> Path:
    """An image of one program at `/<its name>`. The archive's name tells what it was made from: it is never stale."""
    binaries = ensure_program(program, report)
    (name,) = program.packages
    out = cache_root() / "images" / f"{binaries.parent.name}-{user.replace(':', '-')}.tar"
    with file_lock(out.with_suffix(".lock")):
        if not out.exists():
            layers = [Layer.of(File(binaries / name, name, 0o755), Directory("tmp", 0o1777))]
            write_image(out, tags=[tag], layers=layers, entrypoint=[f"/{name}"], user=user)
            report(f"{tag} written: {out}")
    return out
