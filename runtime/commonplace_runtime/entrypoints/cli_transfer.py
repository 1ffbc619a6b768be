"""`commonplace export` and `commonplace import`: files of lines, straight from and to the database."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import IO, Annotated, Any, Final, Literal

from cyclopts import Parameter

from commonplace_runtime.domain.errors import InvalidInput, Unavailable
from commonplace_runtime.domain.models import Reach, TeamId
from commonplace_runtime.domain.transfer import Lines
from commonplace_runtime.entrypoints.terminal import Json, Team, as_admin, print_rows, printable, read_moment
from commonplace_runtime.services import tenants
from commonplace_runtime.services.export import ExportWish, begin_export, read_include
from commonplace_runtime.services.import_lines import Importer
from commonplace_runtime.store.pool import Pool

_ACTOR: Final = "human:administrator"
_CHUNK_BYTES: Final = 256 * 1024
_TICK_SECONDS: Final = 1.0
EXIT_INTERRUPTED: Final = 130

Project = Annotated[str | None, Parameter(help="The project's id or name; left out: all of the team's.")]


def export(
    *,
    team: Team,
    to: Annotated[str, Parameter(help="A file, or - for standard output.", allow_leading_hyphen=True)],
    project: Project = None,
    include: Annotated[
        str | None, Parameter(help="Of memories,events,sessions,sources. Default memories,sources.")
    ] = None,
    since: Annotated[str | None, Parameter(help="Changed at or after, for example 2027-01-31T00:00:00Z.")] = None,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    Write a team's memories, private ones too, as lines of JSON that `commonplace import` reads.

    The file appears when it is whole; until then it is called FILE.part. What was written is told on standard error.
    """
    wish = ExportWish(project=project, include=read_include(include), since=read_moment(since), everything=True)
    told = as_admin(lambda pool: _export(pool, team, wish, to))
    _print_counts(told["counts"], json_, {"to": to, **told}, "exported")


async def _export(pool: Pool, team: str, wish: ExportWish, to: str) -> dict[str, Any]:
    reach = await _reach(pool, team)
    export = await begin_export(pool, reach, wish)
    last = b""
    progress = _Progress("exported")
    with _written(to) as out:
        async with aclosing(export.lines()) as chunks:
            async for chunk in chunks:
                out.write(chunk)
                last = chunk
                progress.tell(sum(export.counts.values()))
        out.flush()
        progress.finish()
        end = json.loads(last)
        if end["type"] != "end":
            raise Unavailable(end["message"])
    return {"counts": end["counts"], "cursor": end["cursor"]}


@contextlib.contextmanager
def _written(to: str) -> Iterator[IO[bytes]]:
    """Standard output, or a file that takes its name when the block ends well."""
    if to == "-":
        yield sys.stdout.buffer
        return
    part = Path(f"{to}.part")
    # Memories are nobody else's business on a shared machine.
    with open(part, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
        yield out
    part.replace(to)


def import_(
    *,
    team: Team,
    from_: Annotated[str, Parameter(name="--from", help="A file, or - for standard input.", allow_leading_hyphen=True)],
    project: Annotated[str | None, Parameter(help="Where everything goes; left out: as each line says.")] = None,
    format_: Annotated[Literal["commonplace"], Parameter(name="--format")] = "commonplace",
    from_line: Annotated[int, Parameter(help="Go on with this line.")] = 1,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """
    Read what `commonplace export` or GET /v1/export wrote. Doing it again changes nothing.

    Exits with 1 when a line could not be stored, with 130 when interrupted: it says where to go on.
    """
    if from_line < 1:
        raise InvalidInput("--from-line is the number of a line, from 1")
    told = as_admin(lambda pool: _import(pool, team, project, from_, from_line))
    errors = told["errors"]
    if not json_:
        for fault in errors:
            print(f"line {fault['line']}: {printable(fault['message'])}", file=sys.stderr)
        if told["failed"] > len(errors):
            print(f"… and {told['failed'] - len(errors)} more", file=sys.stderr)
        if not told["complete"] and not told["interrupted"]:
            print("the file has no end: it was cut, or more of it is elsewhere", file=sys.stderr)
    counts = {name: told[name] for name in ("imported", "updated", "unchanged", "skipped", "failed")}
    _print_counts(counts, json_, told, "what")
    if told["interrupted"]:
        print(f"interrupted: go on with --from-line {told['nextLine']}", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED)
    if told["failed"]:
        raise SystemExit(1)


async def _import(pool: Pool, team: str, project: str | None, source: str, from_line: int) -> dict[str, Any]:
    importer = Importer(pool, await _reach(pool, team), project=project, is_admin=True, from_line=from_line)
    lines = Lines()
    progress = _Progress("line")
    with _opened(source) as file, _interruptible() as interrupted:
        try:
            while not interrupted and not importer.has_given_up and (chunk := file.read(_CHUNK_BYTES)):
                for number, line in lines.feed(chunk):
                    await importer.take(number, line)
                    progress.tell(number)
                    if interrupted or importer.has_given_up:
                        break
            if not interrupted and not importer.has_given_up:
                for number, line in lines.finish():
                    await importer.take(number, line)
            summary = importer.summary if interrupted else await importer.finish()
        except Unavailable as error:
            progress.finish()
            raise Unavailable(f"{error.message}; go on with --from-line {importer.summary.next_line}") from error
    progress.finish()
    return {**summary.answer(), "interrupted": bool(interrupted)}


@contextlib.contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        yield sys.stdin.buffer
        return
    with Path(source).open("rb") as file:
        yield file


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that holds something once Ctrl-C was pressed: the batch under way is finished. A second ends at once."""
    pressed: list[int] = []

    def note(number: int, _frame: object) -> None:
        pressed.append(number)
        signal.signal(number, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


async def _reach(pool: Pool, team: str) -> Reach:
    found = await tenants.find_team(pool, team)
    return Reach(team_id=TeamId(str(found["id"])), actor=_ACTOR)


class _Progress:
    """A count on standard error, once a second; on a terminal it stays on its line."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._last = monotonic()
        self._is_shown = False

    def tell(self, count: int) -> None:
        if monotonic() - self._last < _TICK_SECONDS:
            return
        self._last = monotonic()
        self._is_shown = sys.stderr.isatty()
        print(f"\r{self._word} {count:,}" if self._is_shown else f"{self._word} {count}",
              end="" if self._is_shown else "\n", file=sys.stderr, flush=True)  # fmt: skip

    def finish(self) -> None:
        if self._is_shown:
            print(file=sys.stderr)


def _print_counts(counts: dict[str, int], as_json: bool, told: dict[str, Any], heading: str) -> None:
    """On standard output; of an export to there on standard error."""
    with contextlib.redirect_stdout(sys.stderr if told.get("to") == "-" else sys.stdout):
        if as_json:
            print(json.dumps(told))
        else:
            rows = [{"what": name, "count": count} for name, count in counts.items()]
            print_rows(rows, {heading: "what", "count": "count"}, False)
