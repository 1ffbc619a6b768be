"""Claude through the Anthropic SDK: one request, structured output, no retries of its own (the job's row waits)."""

from typing import Final

import anthropic
from anthropic.types import JSONOutputFormatParam, Message, OutputConfigParam, TextBlock

from commonplace_runtime import contract
from commonplace_runtime.domain import extraction
from commonplace_runtime.domain.retry import FailureKind
from commonplace_runtime.llm.http import UNSENT
from commonplace_runtime.llm.model import MAX_TOKENS, Endpoint, ModelGenerator, Reply
from commonplace_runtime.llm.refusals import CallFailed, refused

_BY_STOP: Final[dict[str, tuple[FailureKind, str]]] = {
    "refusal": ("refusal", "the model refused"),
    "max_tokens": ("splittable", "the answer was longer than allowed"),
    "model_context_window_exceeded": ("splittable", "the events do not fit the model's context"),
}


class AnthropicGenerator(ModelGenerator):
    """Observations from a Claude model. base_url: another endpoint of the same dialect."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("anthropic", endpoint)
        self._client = anthropic.AsyncAnthropic(
            api_key=endpoint.api_key,
            # The SDK adds the version itself.
            base_url=endpoint.base_url.removesuffix("/v1") or None,
            timeout=endpoint.timeout_seconds,
            max_retries=0,
        )

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        await self._client.close()

    async def _ask(self, prompt: str) -> Reply:
        try:
            message = await self._client.messages.create(
                model=self.model,
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
            raise refused(
                error.status_code, error.body, error.response.headers, key_variable=contract.ENV_ANTHROPIC_API_KEY
            ) from error
        except anthropic.APIResponseValidationError as error:
            raise CallFailed("invalid_output", "the provider's answer is not a message") from error
        except anthropic.APIConnectionError as error:
            if isinstance(error.__cause__, UNSENT):
                raise CallFailed("transient", f"the provider was not reached: {type(error).__name__}") from error
            reason = f"the connection to the provider was lost: {type(error).__name__}"
            raise CallFailed("transient", reason, is_broken_off=True) from error
        except anthropic.AnthropicError as error:
            raise CallFailed("configuration", f"the SDK refused: {type(error).__name__}") from error
        return _reply(message)


def _reply(message: Message) -> Reply:
    # The SDK does not validate: a proxy's page arrives as text, a gateway's half message with holes.
    if isinstance(message, Message) and (error := (message.model_extra or {}).get("error")):
        raise refused(200, {"error": error}, {}, key_variable=contract.ENV_ANTHROPIC_API_KEY, inside_ok=True)
    if not isinstance(message, Message) or not isinstance(message.content, list):
        raise CallFailed("invalid_output", "the provider's answer is not a message")
    usage = message.usage
    tokens_in = tokens_out = None
    if usage is not None and usage.input_tokens is not None:
        # What is billed as input is the sum of the three.
        tokens_in = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
        tokens_out = usage.output_tokens
    return Reply(
        text="".join(block.text for block in message.content if isinstance(block, TextBlock)),
        model=message.model,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        stopped=_BY_STOP.get(message.stop_reason or ""),
    )
