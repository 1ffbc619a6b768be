"""Where builds are kept, what their directory's name depends on, and what the reader is told when one fails."""

from pathlib import Path

import pytest

from e2e.cluster import gobuild, programs
from e2e.cluster.build import PROGRAMS, build_home, kubernetes, kubernetes_version
from e2e.cluster.cache import ClusterError, Report, cache_root, file_lock, file_sha256, sources_checksum
from e2e.cluster.compiler import advice_for, run_go
from e2e.cluster.gobuild import GoProgram, ensure_program
from e2e.cluster.toolchain import MINIMUM_GO, parse_go_version

ALL_PROGRAMS = [
    kubernetes(),
    *programs.NODE_PROGRAMS,
    programs.PROMETHEUS,
    programs.PROMTOOL,
    programs.PROMETHEUS_ADAPTER,
    programs.KIND,
]
GO_MOD = "module x\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.36.3\n"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for name, content in {"go.mod": GO_MOD, "go.sum": "sums", "main.go": "package main"}.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_the_cache_follows_xdg_and_ignores_a_relative_value() -> None:
    assert cache_root({"XDG_CACHE_HOME": "/big/cache"}) == Path("/big/cache/commonplace/cluster")
    assert cache_root({}) == Path.home() / ".cache/commonplace/cluster"
    assert cache_root({"XDG_CACHE_HOME": "cache"}) == cache_root({})


def test_the_directory_names_the_version_and_a_checksum(sources: Path) -> None:
    home = build_home(Path("/cache"), sources)
    assert home.parent == Path("/cache")
    version, _, checksum = home.name.partition("-")
    assert version == "1.36.3"
    assert len(checksum) == 16
    assert home == build_home(Path("/cache"), sources)


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go"])
def test_any_change_of_a_source_builds_elsewhere(name: str, sources: Path) -> None:
    before = build_home(Path("/cache"), sources)
    with (sources / name).open("a") as file:
        file.write("\n// changed\n")
    assert build_home(Path("/cache"), sources) != before


def test_any_change_of_a_flag_builds_elsewhere(sources: Path) -> None:
    files = [sources / "main.go"]
    assert sources_checksum(files, flags=["-trimpath"]) != sources_checksum(files, flags=[])
    assert sources_checksum(files, flags=["a", "b"]) == sources_checksum(files, flags=["b", "a"])


def test_sources_that_trade_contents_do_not_collide(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a")
    second.write_text("b")
    before = sources_checksum([first, second], flags=[])
    first.write_text("b")
    second.write_text("a")
    assert sources_checksum([first, second], flags=[]) != before


def test_the_version_is_the_one_that_go_mod_pins_and_the_binary_reports(sources: Path) -> None:
    assert kubernetes_version(sources) == "1.36.3"
    assert "gitVersion=v1.36.3" in " ".join(kubernetes(sources).flags())
    (sources / "go.mod").write_text("module x\n")
    with pytest.raises(ClusterError, match=r"does not pin k8s\.io/kubernetes"):
        kubernetes_version(sources)


def test_the_go_program_knows_every_name_that_is_linked_to_it() -> None:
    main = (Path(__file__).resolve().parents[3] / "e2e/cluster/go/kubernetes/main.go").read_text()
    assert all(f'"{program}":' in main for program in PROGRAMS)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("go version go1.26.6 linux/amd64\n", (1, 26)),
        ("go version go1.27rc1 linux/arm64\n", (1, 27)),
        ("go version go1.9 linux/amd64\n", (1, 9)),
        ("go version devel go1.28-abcdef linux/amd64\n", None),
        ("pyenv: go: command not found\n", None),
    ],
)
def test_the_version_of_go_is_read(output: str, version: tuple[int, int] | None) -> None:
    assert parse_go_version(output) == version
    assert MINIMUM_GO > (1, 9)


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("write /home/someone/.cache/go-build/x: no space left on device", "the disk is full"),
        ('Get "https://proxy": dial tcp: lookup proxy: no such host', "check the network"),
        ("go: go.mod requires go >= 1.26.0 (running go 1.22.1; GOTOOLCHAIN=local)", "this Go is too old"),
        ("compile: signal: killed", "memory ran out"),
        ("./main.go:1:1: expected 'package'", "see Go's own words"),
    ],
)
def test_a_failed_build_says_what_to_do(output: str, advice: str) -> None:
    assert advice in advice_for(output)


def _run(script: str) -> float:
    return run_go(
        ["sh", "-c", script], what="it", cwd=Path("/"), environment={"PATH": "/usr/bin:/bin"}, progress=lambda *_: None
    )


def test_a_failed_command_is_reported_with_its_last_words() -> None:
    with pytest.raises(ClusterError, match="the disk is full") as failed:
        _run("echo first >&2; echo no space left on device >&2; exit 3")
    assert "first\nno space left on device" in str(failed.value)


def test_a_command_that_succeeds_gives_its_seconds() -> None:
    assert 0 < _run("echo fine >&2") < 60


def test_a_lock_is_held_by_one_at_a_time_and_the_others_say_so(tmp_path: Path) -> None:
    waited: list[str] = []

    class Impatient(Exception):
        pass

    def waiting() -> None:
        waited.append("waiting")
        raise Impatient

    lock = tmp_path / "lock"
    with file_lock(lock, waiting=waiting), pytest.raises(Impatient), file_lock(lock, waiting=waiting):
        pass
    assert waited == ["waiting"]
    with file_lock(lock, waiting=waiting):
        assert waited == ["waiting"]


@pytest.mark.parametrize("program", ALL_PROGRAMS, ids=lambda program: program.title)
def test_every_program_is_pinned_and_has_a_directory_of_its_own(program: GoProgram) -> None:
    home = program.home(Path("/cache"))
    assert home.name.startswith(f"{program.prefix}{program.pinned_version()}-")
    assert [other.home(Path("/cache")) for other in ALL_PROGRAMS].count(home) == 1
    assert (program.sources / "go.sum").exists()


def test_promtool_and_prometheus_are_built_apart_without_the_clients_of_clouds() -> None:
    assert programs.PROMTOOL.packages.keys() == {"promtool"}
    for program in (programs.PROMTOOL, programs.PROMETHEUS):
        assert "remove_all_sd,enable_kubernetes_sd" in program.flags()


def test_a_damaged_or_missing_binary_is_not_taken_for_a_built_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []

    def build(program: GoProgram, home: Path, report: Report) -> None:
        built.append(home)
        (home / "bin").mkdir(parents=True, exist_ok=True)
        (home / "bin" / "pause").write_bytes(b"program")
        (home / "sha256").write_text(file_sha256(home / "bin" / "pause") + "\n")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gobuild, "_build", build)
    said: list[str] = []
    directory = ensure_program(programs.PAUSE, said.append)
    assert ensure_program(programs.PAUSE, said.append) == directory
    assert (len(built), said) == (1, [])
    (directory / "pause").write_bytes(b"damaged")
    ensure_program(programs.PAUSE, said.append)
    assert len(built) == 2
    assert "is damaged" in said[0]
