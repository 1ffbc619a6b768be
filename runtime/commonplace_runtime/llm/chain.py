"""Several generators as one: who fails hands over to the next, and what each of them used is kept."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from commonplace_runtime.domain.observations import Generated, SourceEvent
from commonplace_runtime.domain.retry import Failure, FailureKind, pause_seconds
from commonplace_runtime.llm.ports import Batch, Estimate, GenerationFailed, Generator, MayCall

_FINAL: Final[frozenset[FailureKind]] = frozenset({"poison", "splittable"})
"""The fault is the batch's: it is for the worker to halve it."""
_CLOSED: Final[frozenset[FailureKind]] = frozenset({"throttled", "configuration"})
"""The same credential would be refused again."""
_VERDICTS: Final[Sequence[FailureKind]] = ("refusal", "invalid_output", "throttled", "configuration", "transient")
"""
Which kind speaks for a chain that failed as a whole. A model's answer comes first: waiting for another provider to
come back would buy the same answer again and again. Then what says when to come back, the soonest of them.
"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """
    One generator of the chain.

    is_stronger: a better model of the provider before it, asked only when that one's answer had not the agreed form.
    """

    generator: Generator
    is_stronger: bool = False


class ChainedGenerator:
    """Steps in the order in which they are tried, at least one. Each of them bounds its own time."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._first = steps[0].generator

    @property
    def provider(self) -> str:
        """The first one's name."""
        return self._first.provider

    @property
    def credentials(self) -> Sequence[str]:
        """Of all steps, in order, each once."""
        return tuple(dict.fromkeys(name for step in self._steps for name in step.generator.credentials))

    @property
    def folds_runs(self) -> bool:
        """What the first wants."""
        return self._first.folds_runs

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        """What the first would take."""
        return self._first.batch_size(events)

    def estimate(self, batch: Batch) -> Estimate | None:
        """Of the first call; what a failed one used is counted after it."""
        return self._first.estimate(batch)

    async def generate(
        self, batch: Batch, *, avoid: Collection[str] = (), may_call: MayCall | None = None
    ) -> Generated:
        """
        The first answer that can be used, with the failures before it in `earlier`.

        Raises GenerationFailed: at once where the batch itself is at fault, else when nobody is left.
        """
        failures: list[Failure] = []
        closed = set(avoid)
        before: FailureKind | None = None
        for place, step in enumerate(self._steps):
            if step.is_stronger and before != "invalid_output":
                continue
            before = None
            if closed.issuperset(step.generator.credentials):
                continue
            # The estimate that was asked about is the first step's, even where that one is paused.
            if place and may_call is not None and not await may_call(step.generator.estimate(batch), failures):
                break
            try:
                generated = await step.generator.generate(batch)
            except GenerationFailed as error:
                failures += [*error.earlier, error.failure]
                before = error.failure.kind
                if before in _FINAL:
                    break
                if before in _CLOSED:
                    closed.update(step.generator.credentials)
            else:
                return replace(generated, earlier=(*failures, *generated.earlier))
        raise _failed(failures)

    async def aclose(self) -> None:
        """Close every step."""
        for step in self._steps:
            await step.generator.aclose()


def _failed(failures: Sequence[Failure]) -> GenerationFailed:
    if not failures:
        return GenerationFailed(Failure(kind="throttled", reason="every provider is paused"))
    verdict = failures[-1]
    if verdict.kind not in _FINAL:
        verdict = min(failures, key=lambda failure: (_VERDICTS.index(failure.kind), pause_seconds(failure)))
    return GenerationFailed(verdict, earlier=[failure for failure in failures if failure is not verdict])
