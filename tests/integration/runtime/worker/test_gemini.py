"""What is Gemini's alone: how it is asked, and its own words for ends and refusals."""

import pytest

from commonplace_runtime.llm.gemini import GeminiGenerator
from commonplace_runtime.llm.model import Endpoint
from commonplace_runtime.llm.ports import GenerationFailed
from tests.fakes.provider import KEY, Answer, Document, FakeProvider, Status
from tests.integration.runtime.worker.test_providers import BATCH, failure_of


def generator(provider: FakeProvider, model: str = "gemini-3.1-flash-lite", path: str = "") -> GeminiGenerator:
    return GeminiGenerator(Endpoint(model=model, api_key=KEY, base_url=provider.url + path))


async def test_a_call_is_one_structured_request_with_the_key_in_a_header() -> None:
    async with FakeProvider() as provider:
        await generator(provider, path="/v1beta").generate(BATCH)

    [call] = provider.calls
    assert call.path == "/v1beta/models/gemini-3.1-flash-lite:generateContent"
    assert call.headers["x-goog-api-key"] == KEY
    wanted = call.body["generationConfig"]
    assert wanted["responseMimeType"] == "application/json"
    assert wanted["responseJsonSchema"]["required"] == ["observations", "session", "skip_reason"]
    assert "tools" not in call.body


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("gemini-3.1-flash-lite", {"thinkingLevel": "low"}),
        ("models/gemini-2.5-flash", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"thinkingBudget": 128}),
        ("gemini-2.0-flash", None),
    ],
)
async def test_a_model_thinks_as_little_as_it_can(model: str, thinking: object) -> None:
    async with FakeProvider() as provider:
        await generator(provider, model).generate(BATCH)

    assert provider.calls[0].body["generationConfig"].get("thinkingConfig") == thinking


async def test_a_model_that_must_think_is_asked_again_and_then_left_to_itself() -> None:
    objection = Status(code=400, kind="invalid_argument", message="Thinking level is not supported for this model.")
    async with FakeProvider(objection) as provider:
        asked = generator(provider)
        await asked.generate(BATCH)
        await asked.generate(BATCH)

    assert ["thinkingConfig" in call.body["generationConfig"] for call in provider.calls] == [True, False, False]


@pytest.mark.parametrize(
    ("stop_reason", "kind"),
    [
        ("blocked", "refusal"),
        ("SAFETY", "refusal"),
        ("RECITATION", "refusal"),
        ("PROHIBITED_CONTENT", "refusal"),
        ("MAX_TOKENS", "splittable"),
        ("MALFORMED_FUNCTION_CALL", "invalid_output"),
        ("OTHER", "invalid_output"),
    ],
)
async def test_an_answer_that_ended_otherwise_is_not_read(stop_reason: str, kind: str) -> None:
    async with FakeProvider(Answer(stop_reason=stop_reason)) as provider:
        assert (await failure_of("gemini", provider)).kind == kind


async def test_thoughts_are_billed_and_not_read() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": '{"observations": [], "skip_reason": "nothing"}'}]
    answer = {
        "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "thoughtsTokenCount": 30},
    }
    async with FakeProvider(Document(content=answer)) as provider:
        generated = await generator(provider).generate(BATCH)

    assert generated.skip_reason == "nothing"
    assert (generated.input_tokens, generated.output_tokens) == (7, 32)


async def test_the_delay_that_google_writes_into_the_body_is_kept() -> None:
    refused = {
        "error": {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "41.5s"}],
        }
    }
    async with FakeProvider(Document(content=refused)) as provider:
        with pytest.raises(GenerationFailed) as caught:
            await generator(provider).generate(BATCH)

    assert caught.value.failure.kind == "throttled"
    assert caught.value.failure.retry_after_seconds == 41.5
