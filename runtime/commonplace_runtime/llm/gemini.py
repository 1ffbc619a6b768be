"""Gemini's generateContent, version v1beta, over the small client."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from commonplace_runtime import contract
from commonplace_runtime.domain import extraction
from commonplace_runtime.domain.retry import FailureKind
from commonplace_runtime.llm.http import JsonClient
from commonplace_runtime.llm.model import MAX_TOKENS, Endpoint, ModelGenerator, Reply, count
from commonplace_runtime.llm.refusals import CallFailed, refused, told_by

BASE_URL: Final = "https://generativelanguage.googleapis.com"
_REFUSALS: Final = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"}
)


class GeminiGenerator(ModelGenerator):
    """Observations from a Gemini model. The key goes into a header: addresses end up in logs."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("gemini", endpoint)
        base = (endpoint.base_url or BASE_URL).removesuffix("/v1beta")
        self._url = f"{base}/v1beta/models/{quote(endpoint.model.removeprefix('models/'), safe='')}:generateContent"
        self._client = JsonClient(
            headers={"x-goog-api-key": endpoint.api_key}, timeout_seconds=endpoint.timeout_seconds
        )
        self._thinking = _least_thinking(endpoint.model)

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        await self._client.aclose()

    async def _ask(self, prompt: str) -> Reply:
        reply = await self._client.post(self._url, self._request(prompt))
        if reply.status == 400 and self._thinking and told_by(reply.document).says(("thinking",)):
            # Models differ in how little they may think; this one is left to itself from now on.
            self._thinking = {}
            reply = await self._client.post(self._url, self._request(prompt))
        document = reply.document
        has_error = isinstance(document, Mapping) and "error" in document
        if reply.status != 200 or has_error:
            raise refused(
                reply.status,
                document,
                reply.headers,
                key_variable=contract.ENV_GEMINI_API_KEY,
                inside_ok=reply.status == 200,
            )
        if not isinstance(document, Mapping):
            raise CallFailed("invalid_output", "the provider's answer is not JSON")
        return _reply(document)

    def _request(self, prompt: str) -> Mapping[str, Any]:
        return {
            "systemInstruction": {"parts": [{"text": extraction.SYSTEM_PROMPT}]},
            "contents": [{"role": "user", "parts": [{"text": prompt}]}],
            "generationConfig": {
                "maxOutputTokens": MAX_TOKENS,
                "responseMimeType": "application/json",
                "responseJsonSchema": extraction.ANSWER_SCHEMA,
                **({"thinkingConfig": self._thinking} if self._thinking else {}),
            },
        }


def _least_thinking(model: str) -> Mapping[str, Any]:
    """As little as a model of its generation lets itself be told."""
    name = model.removeprefix("models/")
    if name.startswith(("gemini-1", "gemini-2.0", "gemma")):
        return {}
    if name.startswith("gemini-2.5"):
        return {"thinkingBudget": 128 if "pro" in name else 0}
    return {"thinkingLevel": "low"}


def _reply(document: Mapping[str, Any]) -> Reply:
    candidates = document.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    candidate = first if isinstance(first, Mapping) else None
    feedback = document.get("promptFeedback")
    is_blocked = isinstance(feedback, Mapping) and bool(feedback.get("blockReason"))
    if candidate is None and not is_blocked:
        raise CallFailed("invalid_output", "the provider's answer has no candidate")
    usage = document.get("usageMetadata")
    model = document.get("modelVersion")
    text = _text(candidate or {})
    return Reply(
        text=text,
        model=model if isinstance(model, str) else None,
        input_tokens=count(usage, "promptTokenCount", "toolUsePromptTokenCount"),
        # An answer of no token is told by leaving the field out.
        output_tokens=count(usage, "candidatesTokenCount", "thoughtsTokenCount") or (None if text else 0),
        stopped=("refusal", "the provider blocked the prompt")
        if is_blocked
        else _stopped((candidate or {}).get("finishReason")),
    )


def _text(candidate: Mapping[str, Any]) -> str:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else None
    texts = [
        part.get("text")
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, Mapping) and not part.get("thought")
    ]
    return "".join(text for text in texts if isinstance(text, str))


def _stopped(reason: object) -> tuple[FailureKind, str] | None:
    if reason == "MAX_TOKENS":
        return "splittable", "the answer was longer than allowed"
    if reason in _REFUSALS:
        return "refusal", "the model refused"
    if reason in ("STOP", None, "FINISH_REASON_UNSPECIFIED"):
        return None
    return "invalid_output", "the model did not end its answer"
