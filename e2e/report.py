"""What a run shows: a line a step while it works, a table of what was checked at the end."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["ok", "FAILED", "not reached"]


class CheckFailed(Exception):
    """A promise did not hold. The message says what was seen instead."""


@dataclass(kw_only=True)
class Row:
    """One line of the table."""

    name: str
    outcome: Outcome = "not reached"
    seen: str = ""


@dataclass(kw_only=True)
class Report:
    """Collects rows and prints progress. `rows` is filled with every promised name at the start."""

    rows: dict[str, Row] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def promise(self, *names: str) -> None:
        """Announce rows: what is never reached is shown as such and counts as a failure."""
        for name in names:
            self.rows[name] = Row(name=name)

    def say(self, text: str) -> None:
        """Print lines below the step that is running."""
        for line in text.rstrip().splitlines():
            print(f"          {line}", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the title, run the body, print the seconds it took."""
        began = time.monotonic()
        print(f"[{began - self.started:6.1f} s] {title} …", flush=True)
        try:
            yield
        except BaseException as error:
            print(f"          stopped after {time.monotonic() - began:.1f} s: {type(error).__name__}", flush=True)
            raise
        print(f"          done in {time.monotonic() - began:.1f} s", flush=True)

    @contextmanager
    def check(self, name: str) -> Iterator[Row]:
        """Run one check. The body sets `row.seen`; an exception marks the row and goes on up."""
        row = self.rows[name]
        try:
            yield row
        except CheckFailed as error:
            row.outcome, row.seen = "FAILED", str(error)
            raise
        except Exception as error:
            row.outcome, row.seen = "FAILED", f"{type(error).__name__}: {error}"
            raise
        row.outcome = "ok"

    @property
    def succeeded(self) -> bool:
        """Whether every promised row was reached and held."""
        return all(row.outcome == "ok" for row in self.rows.values())

    def summary(self) -> str:
        """The table, widest name first column."""
        width = max(len(name) for name in self.rows)
        lines = [f"{'what was checked'.ljust(width)}  {'result'.ljust(11)}  seen", "-" * (width + 40)]
        lines += [
            f"{row.name.ljust(width)}  {row.outcome.ljust(11)}  {row.seen}".rstrip() for row in self.rows.values()
        ]
        failed = [row.name for row in self.rows.values() if row.outcome != "ok"]
        total = time.monotonic() - self.started
        verdict = "all held" if not failed else f"{len(failed)} did not hold: {', '.join(failed)}"
        return "\n".join([*lines, "", f"{len(self.rows)} checks in {total:.0f} s, {verdict}"])


def complain(text: str) -> None:
    """One message on stderr."""
    print(text, file=sys.stderr, flush=True)
