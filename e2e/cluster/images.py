"""
Container images written as files, by no daemon: the archive that `docker load` and `ctr images import` take.

Everything that could differ between two runs is fixed (times, owners, the order of entries), so the same files give the
same image id and a layer that a node already holds is not stored again.

    write_image(
        Path("app.tar"),
        tags=["localhost/app:1"],
        layers=[Layer.from_tar(base), Layer.of(Tree(site_packages, "opt/app"), File(program, "usr/bin/app", 0o755))],
        entrypoint=["/usr/bin/app"],
        user="65532:65532",
    )
"""

import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, Self, assert_never

_EPOCH: Final = "1970-01-01T00:00:00Z"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class File:
    """One regular file. `source`: a path, or the content. `mode` None: 0755 for an executable source, else 0644."""

    source: Path | bytes
    destination: str
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link at `destination` that points to `target`, which need not exist."""

    target: str
    destination: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with a mode of its own; the parents of everything else come by themselves, with 0755."""

    destination: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything below the directory `source`: files, links (kept as links) and directories, with their modes."""

    source: Path
    destination: str


Entry = File | Link | Directory | Tree


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """
    One layer: a ready tar taken as it is, or entries that become root:root with a time of 0.

    A parent that comes by itself replaces a link of a lower layer: over a root whose /lib is a link, say `usr/lib/…`.
    """

    tar: Path | None = None
    entries: Sequence[Entry] = ()

    @classmethod
    def from_tar(cls, tar: Path) -> Self:
        """An uncompressed tar; reproducible if it is."""
        return cls(tar=tar)

    @classmethod
    def of(cls, *entries: Entry) -> Self:
        return cls(entries=entries)


def write_layer(out: Path, *entries: Entry) -> None:
    """Write the tar of a layer, for `Layer.from_tar`; `out` is replaced in one step."""
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as directory:
        _layer_tar(Layer.of(*entries), Path(directory, "layer.tar")).replace(out)


def write_image(
    out: Path,
    *,
    tags: Sequence[str],
    layers: Sequence[Layer],
    entrypoint: Sequence[str] = (),
    cmd: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: str = "",
    workdir: str = "/",
    labels: Mapping[str, str] | None = None,
) -> str:
    """
    Write the image to `out` (replaced in one step) and return its id, `sha256:…`.

    tags: `name:tag`, at least one. user: `uid` or `uid:gid`. env: a usual PATH is added unless it has one. Raises
    ValueError for a tag without a name or a layer without content, FileNotFoundError for a source that is missing.
    """
    if not tags or any(not name or not tag for name, _, tag in (text.rpartition(":") for text in tags)):
        raise ValueError(f"an image wants tags of the form name:tag, not {list(tags)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as directory:
        tars = [_layer_tar(layer, Path(directory, f"{number}.tar")) for number, layer in enumerate(layers)]
        digests = [_sha256(tar) for tar in tars]
        config = _config(digests, entrypoint=entrypoint, cmd=cmd, env=env or {}, user=user, workdir=workdir)
        config["config"]["Labels"] = dict(labels or {})
        encoded = _encode(config)
        image = hashlib.sha256(encoded).hexdigest()
        names = [f"{digest}/layer.tar" for digest in digests]
        manifest = [{"Config": f"{image}.json", "RepoTags": list(tags), "Layers": names}]
        staged = Path(directory, "image.tar")
        with tarfile.open(staged, "w", format=tarfile.GNU_FORMAT) as archive:
            for name, tar in dict(zip(names, tars, strict=True)).items():
                with tar.open("rb") as content:
                    _add_file(archive, name, content, tar.stat().st_size, mode=0o644)
            for name, text in ((f"{image}.json", encoded), ("manifest.json", _encode(manifest))):
                _add_file(archive, name, io.BytesIO(text), len(text), mode=0o644)
        staged.replace(out)
    return f"sha256:{image}"


def _config(
    digests: Sequence[str],
    *,
    entrypoint: Sequence[str],
    cmd: Sequence[str],
    env: Mapping[str, str],
    user: str,
    workdir: str,
) -> dict[str, Any]:
    machine = platform.machine()
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": _EPOCH,
        "config": {
            "Entrypoint": list(entrypoint) or None,
            "Cmd": list(cmd) or None,
            "Env": [f"{name}={text}" for name, text in ({"PATH": _PATH} | dict(env)).items()],
            "User": user,
            "WorkingDir": workdir,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": _EPOCH, "created_by": "commonplace"}] * len(digests),
    }


def _encode(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _layer_tar(layer: Layer, staged: Path) -> Path:
    if layer.tar is not None:
        return layer.tar
    if not layer.entries:
        raise ValueError("a layer wants a tar or entries")
    with tarfile.open(staged, "w", format=tarfile.GNU_FORMAT) as archive:
        writer = _LayerWriter(archive)
        for entry in layer.entries:
            writer.add(entry)
    return staged


class _LayerWriter:
    """Adds entries and, before each, those of its parents that are not there yet."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._directories: set[str] = set()

    def add(self, entry: Entry) -> None:
        match entry:
            case File():
                name = self._with_parents(entry.destination)
                if isinstance(entry.source, bytes):
                    content: IO[bytes] = io.BytesIO(entry.source)
                    _add_file(self._archive, name, content, len(entry.source), mode=entry.mode or 0o644)
                    return
                usual = 0o755 if os.access(entry.source, os.X_OK) else 0o644
                with entry.source.open("rb") as content:
                    size = os.fstat(content.fileno()).st_size
                    _add_file(self._archive, name, content, size, mode=entry.mode or usual)
            case Link():
                header = _header(self._with_parents(entry.destination), mode=0o777)
                header.type, header.linkname = tarfile.SYMTYPE, entry.target
                self._archive.addfile(header)
            case Directory():
                self._add_directory(self._with_parents(entry.destination), mode=entry.mode)
            case Tree():
                for inner in _entries_of(entry):
                    self.add(inner)
            case _:
                assert_never(entry)

    def _with_parents(self, destination: str) -> str:
        """The name inside the archive; its parents are there afterwards."""
        name = destination.strip("/")
        if not name or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{destination!r} is no place inside an image")
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self._add_directory(str(parent), mode=0o755)
        return name

    def _add_directory(self, name: str, *, mode: int) -> None:
        if name in self._directories:
            return
        self._directories.add(name)
        header = _header(name, mode=mode)
        header.type = tarfile.DIRTYPE
        self._archive.addfile(header)


def _entries_of(tree: Tree) -> Iterator[Entry]:
    def fail(error: OSError) -> None:
        raise error

    for directory, directories, files in os.walk(tree.source, onerror=fail):
        here = Path(directory)
        inside = PurePosixPath(tree.destination) / here.relative_to(tree.source)
        yield Directory(str(inside), here.stat().st_mode & 0o7777)
        directories.sort()
        for name in _sorted_links(here, directories) + sorted(files):
            source, destination = here / name, str(inside / name)
            if source.is_symlink():
                yield Link(str(source.readlink()), destination)
            else:
                yield File(source, destination, source.stat().st_mode & 0o7777)


def _sorted_links(here: Path, names: Iterable[str]) -> list[str]:
    """os.walk counts a link to a directory among the directories, without entering it."""
    return sorted(name for name in names if (here / name).is_symlink())


def _header(name: str, *, mode: int) -> tarfile.TarInfo:
    """A new TarInfo belongs to 0:0 and has a time of 0."""
    header = tarfile.TarInfo(name)
    header.mode = mode
    return header


def _add_file(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int, *, mode: int) -> None:
    header = _header(name, mode=mode)
    header.size = size
    archive.addfile(header, content)
