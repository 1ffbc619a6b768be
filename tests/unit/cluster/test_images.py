"""Image archives: the same bytes on every run, owned by root, readable by what loads them."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.images import Directory, Entry, File, Layer, Link, Tree, write_image


def read(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        assert member is not None
        return member.read()


def manifest(archive: Path) -> dict[str, Any]:
    (only,) = json.loads(read(archive, "manifest.json"))
    assert isinstance(only, dict)
    return only


def members(archive: Path, layer: int = 0) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(read(archive, manifest(archive)["Layers"][layer]))) as tar:
        return {member.name: member for member in tar.getmembers()}


def config(archive: Path) -> dict[str, Any]:
    decoded = json.loads(read(archive, manifest(archive)["Config"]))
    assert isinstance(decoded, dict)
    return decoded


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(tmp_path: Path, program: Path) -> None:
    def build(name: str) -> bytes:
        write_image(tmp_path / name, tags=["localhost/a:1"], layers=[Layer.of(File(program, "bin/program"))])
        return (tmp_path / name).read_bytes()

    first = build("first.tar")
    os.utime(program, (1, 1))
    assert build("second.tar") == first
    program.write_text("#!/bin/sh\nexit 1\n")
    assert build("third.tar") != first


def test_entries_belong_to_root_and_parents_come_once(tmp_path: Path, program: Path) -> None:
    out = tmp_path / "image.tar"
    entries: list[Entry] = [
        File(program, "usr/local/bin/program"),
        Link("program", "/usr/local/bin/alias"),
        File(b"text", "etc/app/text", 0o600),
        Directory("tmp", 0o1777),
    ]
    write_image(out, tags=["localhost/a:1"], layers=[Layer.of(*entries)])
    found = members(out)
    assert list(found) == [
        *("usr", "usr/local", "usr/local/bin", "usr/local/bin/program", "usr/local/bin/alias"),
        *("etc", "etc/app", "etc/app/text", "tmp"),
    ]
    assert {(entry.uid, entry.gid, entry.mtime) for entry in found.values()} == {(0, 0, 0)}
    assert found["usr/local/bin/program"].mode == 0o755
    assert found["usr/local/bin/alias"].linkname == "program"
    assert found["etc/app/text"].mode == 0o600
    assert found["tmp"].mode == 0o1777


def test_a_tree_keeps_links_and_modes_and_is_sorted(tmp_path: Path, program: Path) -> None:
    source = tmp_path / "tree"
    (source / "b").mkdir(parents=True)
    (source / "b" / "file").write_text("b")
    for name in ("d", "a", "c"):
        (source / name).write_text(name)
    (source / "to-b").symlink_to("b")
    (source / "a").chmod(0o640)
    out = tmp_path / "image.tar"
    write_image(out, tags=["localhost/a:1"], layers=[Layer.of(Tree(source, "opt"))])
    found = members(out)
    assert list(found) == ["opt", "opt/to-b", "opt/a", "opt/c", "opt/d", "opt/b", "opt/b/file"]
    assert found["opt/to-b"].issym()
    assert found["opt/a"].mode == 0o640


def test_a_ready_tar_is_taken_as_it_is_and_layers_keep_their_order(tmp_path: Path, program: Path) -> None:
    base, out = tmp_path / "base.tar", tmp_path / "image.tar"
    with tarfile.open(base, "w") as tar:
        tar.add(program, "from-base")
    write_image(out, tags=["localhost/a:1"], layers=[Layer.from_tar(base), Layer.of(File(program, "above"))])
    assert read(out, manifest(out)["Layers"][0]) == base.read_bytes()
    assert list(members(out, 1)) == ["above"]


def test_a_layer_that_comes_twice_is_stored_once(tmp_path: Path, program: Path) -> None:
    out = tmp_path / "image.tar"
    write_image(out, tags=["localhost/a:1"], layers=[Layer.of(File(program, "x")), Layer.of(File(program, "x"))])
    with tarfile.open(out) as tar:
        assert len(tar.getnames()) == 3
    assert len(config(out)["rootfs"]["diff_ids"]) == 2


def test_the_configuration_says_how_to_run_it(tmp_path: Path, program: Path) -> None:
    out = tmp_path / "image.tar"
    image = write_image(
        out,
        tags=["localhost/a:1", "localhost/b:1"],
        layers=[Layer.of(File(program, "program"))],
        entrypoint=["/program"],
        cmd=["api"],
        env={"LANG": "C.UTF-8"},
        user="65532:65532",
        workdir="/work",
        labels={"one": "1"},
    )
    assert manifest(out)["Config"] == image.removeprefix("sha256:") + ".json"
    assert manifest(out)["RepoTags"] == ["localhost/a:1", "localhost/b:1"]
    settings = config(out)["config"]
    assert settings["Entrypoint"] == ["/program"]
    assert settings["Cmd"] == ["api"]
    assert settings["User"] == "65532:65532"
    assert settings["WorkingDir"] == "/work"
    assert settings["Labels"] == {"one": "1"}
    assert [text.partition("=")[0] for text in settings["Env"]] == ["PATH", "LANG"]


@pytest.mark.parametrize("tags", [[], ["untagged"], [":1"], ["name:"]])
def test_a_tag_wants_a_name_and_a_version(tags: list[str], tmp_path: Path, program: Path) -> None:
    with pytest.raises(ValueError, match="name:tag"):
        write_image(tmp_path / "image.tar", tags=tags, layers=[Layer.of(File(program, "program"))])


@pytest.mark.parametrize("destination", ["/", "../etc/passwd", "a/../../b"])
def test_nothing_is_written_outside_of_the_image(destination: str, tmp_path: Path, program: Path) -> None:
    with pytest.raises(ValueError, match="no place inside an image"):
        write_image(tmp_path / "image.tar", tags=["a:1"], layers=[Layer.of(File(program, destination))])


def test_a_missing_source_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_image(tmp_path / "image.tar", tags=["a:1"], layers=[Layer.of(File(tmp_path / "missing", "x"))])
    assert list(tmp_path.iterdir()) == []
