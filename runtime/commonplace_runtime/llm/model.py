"""What all models share: events become a prompt, one call is made within its time, its text becomes observations."""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from commonplace_runtime.domain import extraction
from commonplace_runtime.domain.observations import Generated, SourceEvent
from commonplace_runtime.domain.payloads import is_heavy
from commonplace_runtime.domain.retry import Failure, FailureKind
from commonplace_runtime.llm.ports import Batch, Estimate, GenerationFailed, MayCall
from commonplace_runtime.llm.refusals import CallFailed

MAX_TOKENS: Final = 4096
"""Of an answer."""
MODEL_NAME_CHARACTERS: Final = 128
MAX_COUNT: Final = 10**9
"""Of tokens that a provider says one call used: what it adds to must fit the store's columns."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """
    A model's answer. Tokens are None where the provider did not count them.

    stopped: why `text` is not to be read, where the model did not end by itself.
    """

    text: str
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    stopped: tuple[FailureKind, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """
    Where a model is called, and how.

    base_url: empty for the provider's own. timeout_seconds bounds one call as a whole. redact: applied to every text
    before it leaves; events were redacted at ingest too.
    """

    model: str
    api_key: str = ""
    base_url: str = ""
    timeout_seconds: float = 60.0
    redact: Callable[[str], str] = str

    def __repr__(self) -> str:
        return f"Endpoint(model={self.model!r})"


class ModelGenerator(ABC):
    """A generator that calls one model of one provider. A provider says how to ask."""

    def __init__(self, provider: str, endpoint: Endpoint) -> None:
        self.provider: Final = provider
        self.model: Final = endpoint.model
        self.credential: Final = credential(provider, endpoint.base_url, endpoint.api_key)
        self._timeout_seconds = endpoint.timeout_seconds
        self._redact = endpoint.redact

    @property
    def credentials(self) -> Sequence[str]:
        """The one that it has."""
        return (self.credential,)

    @property
    def folds_runs(self) -> bool:
        """A model reads a list of what was looked at as well as each of it by itself."""
        return True

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        """As many as make a prompt of about 12,000 tokens."""
        return extraction.batch_size(events)

    def estimate(self, batch: Batch) -> Estimate:
        """The prompt's size, and an answer as long as allowed."""
        return Estimate(
            provider=self.provider,
            model=self.model,
            input_tokens=extraction.estimate_tokens(batch),
            output_tokens=MAX_TOKENS,
        )

    async def generate(
        self, batch: Batch, *, avoid: Collection[str] = (), may_call: MayCall | None = None
    ) -> Generated:
        """One call. Whom to avoid is the chain's business. Raises GenerationFailed."""
        if is_heavy([one.payload for event in batch.events for one in event.shown]):
            # In a thread: cleaning megabytes takes its time, and the leases of other sessions need the event loop.
            prompt = await asyncio.to_thread(extraction.render_prompt, batch, self._redact)
        else:
            prompt = extraction.render_prompt(batch, self._redact)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reply = await self._ask(prompt)
        except CallFailed as error:
            raise GenerationFailed(
                self._failure(
                    error.kind,
                    error.reason,
                    retry_after_seconds=error.retry_after_seconds,
                    request_id=error.request_id,
                    **(await self._billed(batch) if error.is_broken_off else {}),
                )
            ) from error
        except TimeoutError as error:
            reason = f"the provider did not answer within {self._timeout_seconds:g} seconds"
            raise GenerationFailed(self._failure("transient", reason, **await self._billed(batch))) from error
        return self._generated(batch, reply)

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections to the provider."""

    @abstractmethod
    async def _ask(self, prompt: str) -> Reply:
        """One request, without retries: the job's row waits. Raises CallFailed."""

    def _generated(self, batch: Batch, reply: Reply) -> Generated:
        # Not every server of the dialect counts; a budget must not take that for free.
        tokens_in, tokens_out = reply.input_tokens, reply.output_tokens
        used: dict[str, Any] = {
            "input_tokens": extraction.estimate_tokens(batch) if tokens_in is None else tokens_in,
            "output_tokens": len(reply.text) // extraction.CHARACTERS_A_TOKEN if tokens_out is None else tokens_out,
        }
        if reply.stopped is not None:
            raise GenerationFailed(self._failure(*reply.stopped, **used))
        try:
            answer = extraction.parse_answer(reply.text, events=len(batch.events), recent=len(batch.recent))
        except extraction.InvalidAnswer as error:
            raise GenerationFailed(self._failure("invalid_output", str(error), **used)) from error
        return Generated(
            observations=answer.observations,
            provider=self.provider,
            model=(reply.model or self.model)[:MODEL_NAME_CHARACTERS],
            skip_reason=answer.skip_reason,
            summary=answer.summary,
            **used,
        )

    async def _billed(self, batch: Batch) -> Mapping[str, int]:
        """What a call that was broken off may cost: nobody knows, so as much as was expected of it."""
        estimate = await asyncio.to_thread(self.estimate, batch)
        return {"input_tokens": estimate.input_tokens, "output_tokens": estimate.output_tokens}

    def _failure(self, kind: FailureKind, reason: str, **more: Any) -> Failure:
        return Failure(
            kind=kind, reason=reason, provider=self.provider, model=self.model, credential=self.credential, **more
        )


def credential(provider: str, base_url: str, api_key: str) -> str:
    """What is refused together, as a name that gives nothing of the key away."""
    return f"{provider}:{hashlib.sha256((base_url + api_key).encode()).hexdigest()[:12]}"


def count(usage: object, *names: str) -> int | None:
    """The sum of what a usage document counts under `names`, at most MAX_COUNT; None where it tells no such numbers."""
    if not isinstance(usage, Mapping):
        return None
    found = [usage[name] for name in names if usage.get(name) is not None]
    if not found or not all(type(number) is int and number >= 0 for number in found):
        return None
    total: int = sum(found)
    return min(total, MAX_COUNT)
