"""The demo with its worker not started: its jobs must never be reported as completed."""

from e2e.demo.__main__ import main
from e2e.demo.stack import Stack
from e2e.demo.story import Story


class WithoutWorker(Stack):
    def start_worker(self) -> None:
        """Nobody works."""


class Impatient(Story):
    def tell(self) -> None:
        self.jobs_seconds = 3
        super().tell()


if __name__ == "__main__":
    raise SystemExit(main(Impatient, WithoutWorker))
