"""What the worker asks of a generator, whoever it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from commonplace_runtime.domain.observations import Generated, SourceEvent
from commonplace_runtime.domain.retry import Failure


class GenerationFailed(Exception):
    """A call without a usable answer; `failure` says what kind, and what it cost all the same."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.reason}")
        self.failure = failure


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Events of one session in order, and the name of their project."""

    project_name: str
    events: Sequence[SourceEvent]


class Generator(Protocol):
    """Turns a batch of events into observations. Safe to use from many tasks at once."""

    @property
    def provider(self) -> str:
        """Name for rows and metrics."""
        ...

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        """How many of `events`, from the first on, one call should take: at least 1."""
        ...

    async def generate(self, batch: Batch) -> Generated:
        """One call, bounded in time. Raises GenerationFailed and nothing else."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
