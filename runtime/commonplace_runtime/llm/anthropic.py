"""Claude through the Anthropic SDK: one request, structured output, no retries of its own (the job's row waits)."""

import asyncio
import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import anthropic
from anthropic.types import JSONOutputFormatParam, Message, OutputConfigParam, TextBlock

from commonplace_runtime.domain import extraction
from commonplace_runtime.domain.observations import Generated, SourceEvent
from commonplace_runtime.domain.retry import Failure, FailureKind
from commonplace_runtime.llm.ports import Batch, Estimate, GenerationFailed

DEFAULT_MODEL: Final = "claude-haiku-5-5"
MAX_TOKENS: Final = 4096

_BY_STATUS: Final[dict[int, FailureKind]] = {
    400: "poison",
    401: "configuration",
    402: "configuration",
    403: "configuration",
    404: "configuration",
    408: "transient",
    409: "transient",
    413: "splittable",
    422: "poison",
    429: "throttled",
}
_BY_STOP: Final[dict[str, tuple[FailureKind, str]]] = {
    "refusal": ("refusal", "the model refused"),
    "max_tokens": ("splittable", "the answer was longer than allowed"),
    "model_context_window_exceeded": ("splittable", "the events do not fit the model's context"),
}


def _unchanged(text: str) -> str:
    return text


class AnthropicGenerator:
    """
    Observations from a Claude model.

    base_url: another endpoint of the same dialect, empty for Anthropic's own. timeout_seconds bounds one call.
    redact: applied to every text before it leaves; events were redacted at ingest too.
    """

    provider: Final = "anthropic"

    def __init__(
        self,
        *,
        api_key: str,
        model: str = "",
        base_url: str = "",
        timeout_seconds: float = 60.0,
        redact: Callable[[str], str] = _unchanged,
    ) -> None:
        self._model = model or DEFAULT_MODEL
        self._redact = redact
        self.credentials = (f"anthropic:{hashlib.sha256((base_url + api_key).encode()).hexdigest()[:12]}",)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url or None, timeout=timeout_seconds, max_retries=0
        )

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        """As many as make a prompt of about 12,000 tokens."""
        return extraction.batch_size(events)

    def estimate(self, batch: Batch) -> Estimate:
        """At three characters a token, and an answer as long as allowed."""
        tokens = extraction.estimate_tokens(batch)
        return Estimate(provider=self.provider, model=self._model, input_tokens=tokens, output_tokens=MAX_TOKENS)

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        await self._client.close()

    async def generate(self, batch: Batch, *, avoid: Collection[str] = ()) -> Generated:
        """One request. Raises GenerationFailed."""
        # In a thread: cleaning megabytes takes its time, and the leases of other sessions need the event loop.
        prompt = await asyncio.to_thread(extraction.render_prompt, batch, self._redact)
        try:
            message = await self._client.messages.create(
                model=self._model,
                max_tokens=MAX_TOKENS,
                system=extraction.SYSTEM_PROMPT,
                messages=[{"role": "user", "content": prompt}],
                thinking={"type": "disabled"},
                output_config=OutputConfigParam(
                    effort="low",
                    format=JSONOutputFormatParam(type="json_schema", schema=dict(extraction.ANSWER_SCHEMA)),
                ),
            )
        except anthropic.APIStatusError as error:
            raise GenerationFailed(self._refused(error)) from error
        except anthropic.APIResponseValidationError as error:
            raise GenerationFailed(self._failure("invalid_output", "the provider's answer is not a message")) from error
        except anthropic.APIConnectionError as error:
            reason = f"the provider was not reached: {type(error).__name__}"
            raise GenerationFailed(self._failure("transient", reason)) from error
        except anthropic.AnthropicError as error:
            raise GenerationFailed(
                self._failure("configuration", f"the SDK refused: {type(error).__name__}")
            ) from error
        return self._generated(message, events=len(batch.events), recent=len(batch.recent))

    def _generated(self, message: Message, *, events: int, recent: int) -> Generated:
        # The SDK does not validate: a proxy's page arrives as text, a gateway's half message with holes.
        if not isinstance(message, Message) or not isinstance(message.content, list) or message.usage is None:
            raise GenerationFailed(self._failure("invalid_output", "the provider's answer is not a message"))
        usage = message.usage
        # What is billed as input is the sum of the three.
        tokens_in = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
        cost: dict[str, Any] = {"input_tokens": tokens_in, "output_tokens": usage.output_tokens}
        if stopped := _BY_STOP.get(message.stop_reason or ""):
            raise GenerationFailed(self._failure(*stopped, **cost))
        text = "".join(block.text for block in message.content if isinstance(block, TextBlock))
        try:
            answer = extraction.parse_answer(text, events=events, recent=recent)
        except extraction.InvalidAnswer as error:
            raise GenerationFailed(self._failure("invalid_output", str(error), **cost)) from error
        return Generated(
            observations=answer.observations,
            provider=self.provider,
            model=message.model,
            skip_reason=answer.skip_reason,
            summary=answer.summary,
            **cost,
        )

    def _refused(self, error: anthropic.APIStatusError) -> Failure:
        status = error.status_code
        kind = _BY_STATUS.get(status, "transient" if status >= 500 else "poison")
        told = f"{error.error_code or ''} {error.api_message or ''}".lower()
        if status == 400 and ("credit" in told or "billing" in told):
            kind = "configuration"
        elif status == 400 and ("too long" in told or "context" in told):
            kind = "splittable"
        named = f" {error.type}" if error.type else ""
        coded = f" {error.error_code}" if error.error_code else ""
        # The body's text stays out: it may quote the prompt.
        reason = f"the provider answered {status}{named}{coded}"
        if status in (401, 403):
            reason += ": check ANTHROPIC_API_KEY"
        elif status == 404:
            reason += ": check COMMONPLACE_MODEL and COMMONPLACE_PROVIDER_BASE_URL"
        wait = _retry_after(error.response.headers.get("retry-after")) if status == 429 else None
        return self._failure(kind, reason, retry_after_seconds=wait, request_id=error.request_id)

    def _failure(self, kind: FailureKind, reason: str, **more: Any) -> Failure:
        return Failure(
            kind=kind, reason=reason, provider=self.provider, model=self._model, credential=self.credentials[0], **more
        )


def _retry_after(header: str | None) -> float | None:
    """Seconds out of Retry-After; None for dates, nonsense and absence."""
    try:
        seconds = float(header) if header else math.nan
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
