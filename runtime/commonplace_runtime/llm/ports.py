"""What the worker asks of a generator, whoever it is."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from commonplace_runtime.domain.observations import Generated, SessionSummary, SourceEvent
from commonplace_runtime.domain.retry import Failure


class GenerationFailed(Exception):
    """No usable answer; `failure` says what kind, `earlier` what other calls were tried before it, oldest first."""

    def __init__(self, failure: Failure, earlier: Sequence[Failure] = ()) -> None:
        super().__init__(f"{failure.kind}: {failure.reason}")
        self.failure = failure
        self.earlier = tuple(earlier)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """
    Events of one session in order, and what the session's earlier calls left.

    recent: titles of its newest memories, oldest first; an observation may replace them by their places, from 1.
    request: what the person asked for last, where it is known. summary: as it stood after the last call.
    closes_session: the summary will be stored, so an answer without one is of little use. `events` may then be empty.
    """

    project_name: str
    events: Sequence[SourceEvent]
    recent: Sequence[str] = ()
    request: str = ""
    summary: SessionSummary | None = None
    closes_session: bool = False


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one call is expected to use at most. `provider` and `model`: who would be called first."""

    provider: str
    model: str
    input_tokens: int
    output_tokens: int


MayCall: TypeAlias = Callable[[Estimate | None, Sequence[Failure]], Awaitable[bool]]
"""Whether one more call may be made, after those that failed; asked before each but that which `estimate` is of."""


class Generator(Protocol):
    """Turns a batch of events into observations. Safe to use from many tasks at once."""

    @property
    def provider(self) -> str:
        """Name for rows and metrics."""
        ...

    @property
    def credentials(self) -> Sequence[str]:
        """What may be paused, in the order in which it is tried: one for each provider with its endpoint and key."""
        ...

    @property
    def folds_runs(self) -> bool:
        """Whether a run of events is better shown as one: a model is paid by what it reads, rules look at each."""
        ...

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        """How many of `events`, from the first on, one call should take: at least 1."""
        ...

    def estimate(self, batch: Batch) -> Estimate | None:
        """For a budget; None where calls cost nothing."""
        ...

    async def generate(
        self, batch: Batch, *, avoid: Collection[str] = (), may_call: MayCall | None = None
    ) -> Generated:
        """
        Bounded in time. avoid: credentials that are paused now. may_call None: nobody needs to be asked.

        Raises GenerationFailed and nothing else.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
