"""The generator of last and first resort: rules, no model, no key, no cost. Its rows say so."""

from collections.abc import Sequence
from typing import Final

from commonplace_runtime.domain.extractive_rules import observe
from commonplace_runtime.domain.observations import Generated, SourceEvent
from commonplace_runtime.llm.ports import Batch

BATCH_EVENTS: Final = 30


class ExtractiveGenerator:
    """At most one observation an event, each citing that event."""

    provider: Final = "extractive"

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        """Bounded, so that a batch does not hold the event loop for long."""
        return max(min(len(events), BATCH_EVENTS), 1)

    async def generate(self, batch: Batch) -> Generated:
        """Never fails: an event that no rule understands gives nothing."""
        made = [observe(event, number) for number, event in enumerate(batch.events, start=1)]
        return Generated(observations=[one for one in made if one is not None], provider=self.provider)

    async def aclose(self) -> None:
        """There is nothing to let go of."""
