"""
The dialect of OpenAI's chat completions, over the small client: OpenRouter, Ollama, vLLM and others speak it.

Servers differ in what of it they know. What one objects to is left out from then on, for as long as the process lives.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from commonplace_runtime import contract
from commonplace_runtime.domain import extraction
from commonplace_runtime.domain.retry import FailureKind
from commonplace_runtime.llm.http import JsonClient
from commonplace_runtime.llm.http import Reply as HttpReply
from commonplace_runtime.llm.model import MAX_TOKENS, Endpoint, ModelGenerator, Reply, count
from commonplace_runtime.llm.refusals import BROKEN_FORM, CallFailed, Told, refused, told_by

OPENROUTER_URL: Final = "https://openrouter.ai/api/v1"
_PATH: Final = "/chat/completions"

_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "json_schema",
    "json_schema": {"name": "observations", "strict": True, "schema": extraction.ANSWER_SCHEMA},
}
_FORMATS: Final[tuple[Mapping[str, Any] | None, ...]] = (_SCHEMA, {"type": "json_object"}, None)
"""From the strictest to none: the system prompt shows the form too."""
_ENDED: Final = (None, "", "stop", "eos", "eos_token", "stop_sequence", "end_turn")
"""How servers say that the model ended by itself."""
_FORMAT_WORDS: Final = ("response_format", "json_schema", "json_object", "structured output", "schema")


class OpenAICompatibleGenerator(ModelGenerator):
    """
    Observations from any model behind chat completions; `provider` is `openai-compatible` or `openrouter`.

    An endpoint without a key gets no Authorization header.
    """

    def __init__(self, endpoint: Endpoint, *, provider: str = "openai-compatible") -> None:
        super().__init__(provider, endpoint)
        self._url = completions_url(endpoint.base_url or (OPENROUTER_URL if provider == "openrouter" else ""))
        self._key_variable = (
            contract.ENV_OPENROUTER_API_KEY if provider == "openrouter" else contract.ENV_OPENAI_API_KEY
        )
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        self._client = JsonClient(headers=headers, timeout_seconds=endpoint.timeout_seconds)
        self._format = 0
        self._limit = "max_tokens"

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        await self._client.aclose()

    async def _ask(self, prompt: str) -> Reply:
        sent = self._request(prompt)
        reply = await self._client.post(self._url, sent)
        # At most once for each thing that can be left out.
        for _ in range(len(_FORMATS)):
            if reply.status not in (400, 422) or not self._adapt(told_by(reply.document), sent):
                break
            sent = self._request(prompt)
            reply = await self._client.post(self._url, sent)
        return self._read(reply)

    def _request(self, prompt: str) -> Mapping[str, Any]:
        response_format = _FORMATS[self._format]
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": extraction.SYSTEM_PROMPT},
                {"role": "user", "content": prompt},
            ],
            self._limit: MAX_TOKENS,
            **({"response_format": response_format} if response_format else {}),
        }

    def _adapt(self, told: Told, sent: Mapping[str, Any]) -> bool:
        """Leave out what the server objects to; False where it is something else. `sent`: what it objected to."""
        if told.says(("max_completion_tokens",)) and "max_tokens" in sent:
            self._limit = "max_completion_tokens"
            return True
        objected = sent.get("response_format")
        # A model that did not keep to the form is no server that does not know it.
        if objected is not None and told.says(_FORMAT_WORDS) and not told.says(BROKEN_FORM):
            # Another call may have got further meanwhile.
            self._format = max(self._format, _FORMATS.index(objected) + 1)
            return True
        return False

    def _read(self, reply: HttpReply) -> Reply:
        document = reply.document
        error = _error_in(document)
        if reply.status != 200 or error is not None:
            raise refused(
                reply.status,
                document if error is None else error,
                reply.headers,
                key_variable=self._key_variable,
                inside_ok=reply.status == 200,
            )
        choice = _first_choice(document)
        message = choice.get("message") if choice is not None else None
        if not isinstance(document, Mapping) or choice is None or not isinstance(message, Mapping):
            raise CallFailed("invalid_output", "the provider's answer is not a chat completion")
        usage, model = document.get("usage"), document.get("model")
        return Reply(
            text=_text(message.get("content")),
            model=model if isinstance(model, str) else None,
            input_tokens=count(usage, "prompt_tokens"),
            output_tokens=count(usage, "completion_tokens"),
            stopped=_stopped(choice.get("finish_reason"), message),
        )


def completions_url(base_url: str) -> str:
    """Where to post: a base gets `/chat/completions`, a whole endpoint stays; trailing slashes go, a query stays."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_PATH) else path + _PATH).geturl()


def _first_choice(document: object) -> Mapping[str, Any] | None:
    choices = document.get("choices") if isinstance(document, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else None


def _error_in(document: object) -> object:
    """An error that stands beside the choices, or, as OpenRouter tells that its provider broke off, in the first."""
    for holder in (document, _first_choice(document)):
        if isinstance(holder, Mapping) and holder.get("error"):
            return {"error": holder["error"]}
    return None


def _text(content: object) -> str:
    """A message's text; of parts those that are text, without what a model thought or showed."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if part.get("type", "text") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _stopped(reason: object, message: Mapping[str, Any]) -> tuple[FailureKind, str] | None:
    if message.get("refusal") or reason == "content_filter":
        return "refusal", "the model refused"
    if reason == "length":
        return "splittable", "the answer was longer than allowed"
    if reason == "error":
        return "transient", "the provider broke off its answer"
    if reason not in _ENDED or message.get("tool_calls"):
        return "invalid_output", "the model did not end its answer"
    return None
