"""
Claude through the Anthropic SDK: one request, structured output, no retries of its own (the job's row waits).

Models and gateways differ in what they know. What one objects to is left out from then on, for as long as the process
lives.
"""

from collections.abc import Mapping
from typing import Final

import anthropic
from anthropic.types import JSONOutputFormatParam, Message, OutputConfigParam, TextBlock, Usage

from commonplace_runtime import contract
from commonplace_runtime.domain import extraction
from commonplace_runtime.domain.retry import FailureKind
from commonplace_runtime.llm.http import UNSENT
from commonplace_runtime.llm.model import MAX_TOKENS, Endpoint, ModelGenerator, Reply, count
from commonplace_runtime.llm.refusals import CallFailed, refused, told_by

BASE_URL: Final = "https://api.anthropic.com"
_BY_STOP: Final[dict[str, tuple[FailureKind, str]]] = {
    "refusal": ("refusal", "the model refused"),
    "max_tokens": ("splittable", "the answer was longer than allowed"),
    "model_context_window_exceeded": ("splittable", "the events do not fit the model's context"),
}
_NOT_KNOWN: Final = ("support", "not permitted", "not allowed", "unknown", "unrecognized", "unexpected")
_CAN_BE_LEFT_OUT: Final[Mapping[str, frozenset[str]]] = {
    "effort": frozenset({"effort"}),
    "output_config.format": frozenset({"format"}),
    "output_format": frozenset({"format"}),
    "json_schema": frozenset({"format"}),
    "structured output": frozenset({"format"}),
    "output_config": frozenset({"effort", "format"}),
    "thinking": frozenset({"thinking"}),
}
"""What of a request an objection means, by the words that name it; the first that occurs counts."""


class AnthropicGenerator(ModelGenerator):
    """Observations from a Claude model. base_url: another endpoint of the same dialect."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("anthropic", endpoint)
        self._client = anthropic.AsyncAnthropic(
            api_key=endpoint.api_key,
            # The SDK adds the version itself.
            base_url=endpoint.base_url.removesuffix("/v1") or BASE_URL,
            timeout=endpoint.timeout_seconds,
            max_retries=0,
            open_telemetry=False,
        )
        # The SDK takes them out of ANTHROPIC_CUSTOM_HEADERS; what is meant for us stands in the settings.
        self._client._custom_headers = {}
        self._left_out: frozenset[str] = frozenset()

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        await self._client.close()

    async def _ask(self, prompt: str) -> Reply:
        # Ends: each turn leaves out more than the one before.
        while True:
            left_out = self._left_out
            try:
                return _reply(await self._create(prompt, left_out))
            except anthropic.APIStatusError as error:
                objected = _objected_to(error) - left_out
                if not objected:
                    raise _refused(error) from error
                # Another call may have got further meanwhile.
                self._left_out |= objected
            except anthropic.APIResponseValidationError as error:
                raise CallFailed("invalid_output", "the provider's answer is not a message") from error
            except anthropic.APIConnectionError as error:
                if isinstance(error.__cause__, UNSENT):
                    raise CallFailed("transient", f"the provider was not reached: {type(error).__name__}") from error
                reason = f"the connection to the provider was lost: {type(error).__name__}"
                raise CallFailed("transient", reason, is_broken_off=True) from error
            except anthropic.AnthropicError as error:
                raise CallFailed("configuration", f"the SDK refused: {type(error).__name__}") from error

    async def _create(self, prompt: str, left_out: frozenset[str]) -> Message:
        config = OutputConfigParam()
        if "effort" not in left_out:
            config["effort"] = "low"
        if "format" not in left_out:
            config["format"] = JSONOutputFormatParam(type="json_schema", schema=dict(extraction.ANSWER_SCHEMA))
        return await self._client.messages.create(
            model=self.model,
            max_tokens=MAX_TOKENS,
            system=extraction.SYSTEM_PROMPT,
            messages=[{"role": "user", "content": prompt}],
            thinking=anthropic.omit if "thinking" in left_out else {"type": "disabled"},
            output_config=config or anthropic.omit,
        )


def _objected_to(error: anthropic.APIStatusError) -> frozenset[str]:
    """What of the request the provider does not know; empty where the refusal is about something else."""
    told = told_by(error.body)
    if error.status_code != 400 or not told.says(_NOT_KNOWN):
        return frozenset()
    return next((parts for name, parts in _CAN_BE_LEFT_OUT.items() if told.says((name,))), frozenset())


def _refused(error: anthropic.APIStatusError) -> CallFailed:
    return refused(error.status_code, error.body, error.response.headers, key_variable=contract.ENV_ANTHROPIC_API_KEY)


def _reply(message: Message) -> Reply:
    # The SDK does not validate: a proxy's page arrives as text, a gateway's half message with holes.
    if isinstance(message, Message) and (error := (message.model_extra or {}).get("error")):
        raise refused(200, {"error": error}, {}, key_variable=contract.ENV_ANTHROPIC_API_KEY, inside_ok=True)
    if not isinstance(message, Message) or not isinstance(message.content, list):
        raise CallFailed("invalid_output", "the provider's answer is not a message")
    usage = vars(message.usage) if isinstance(message.usage, Usage) else {}
    # What is billed as input is the sum of the three; without the first they are no count.
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    texts = [block.text for block in message.content if isinstance(block, TextBlock)]
    return Reply(
        text="".join(text for text in texts if isinstance(text, str)),
        model=message.model if isinstance(message.model, str) else None,
        input_tokens=None if usage.get("input_tokens") is None else count(usage, *names),
        output_tokens=count(usage, "output_tokens"),
        stopped=_BY_STOP.get(message.stop_reason or ""),
    )
