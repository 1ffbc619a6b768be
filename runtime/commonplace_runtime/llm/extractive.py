"""The generator of last and first resort: rules, no model, no key, no cost. Its rows say so."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from commonplace_runtime.domain.extractive_rules import observe
from commonplace_runtime.domain.extractive_summary import summarise
from commonplace_runtime.domain.observations import Generated, SourceEvent
from commonplace_runtime.llm.ports import Batch, Estimate, MayCall

BATCH_EVENTS: Final = 30


class ExtractiveGenerator:
    """At most one observation an event, each citing that event, and the session's summary out of their titles."""

    provider: Final = "extractive"
    credentials: Final = ("extractive",)
    """Never paused: nobody is called."""
    folds_runs: Final = False

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        """Bounded, so that results are written soon."""
        return max(min(len(events), BATCH_EVENTS), 1)

    def estimate(self, batch: Batch) -> Estimate | None:
        """Rules cost nothing."""
        return None

    async def generate(
        self, batch: Batch, *, avoid: Collection[str] = (), may_call: MayCall | None = None
    ) -> Generated:
        """Never fails: an event that no rule understands gives nothing."""
        # In a thread: an agent's megabyte takes its time, and the leases of other sessions need the event loop.
        return await asyncio.to_thread(self._generated, batch)

    def _generated(self, batch: Batch) -> Generated:
        # A run is folded for a model that this one stands in for.
        made = [observe(part, number) for number, event in enumerate(batch.events, start=1) for part in event.shown]
        observations = [one for one in made if one is not None]
        return Generated(observations=observations, provider=self.provider, summary=summarise(batch, observations))

    async def aclose(self) -> None:
        """There is nothing to let go of."""
