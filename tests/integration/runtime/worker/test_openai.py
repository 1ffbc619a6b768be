"""What is alone with the dialect of chat completions: servers that know only part of it, and OpenRouter."""

import pytest

from commonplace_runtime.llm.model import Endpoint
from commonplace_runtime.llm.openai_compatible import OpenAICompatibleGenerator, completions_url
from commonplace_runtime.llm.ports import GenerationFailed
from tests.fakes.provider import KEY, Answer, Document, FakeProvider, Status, observations
from tests.integration.runtime.worker.test_providers import BATCH, failure_of

TEXT = observations({"title": "told"})


def completion(finish_reason: str | None = "stop", **message: object) -> Document:
    return Document(content={"choices": [{"message": message, "finish_reason": finish_reason}]})


OBJECTION = Status(code=400, kind="invalid_request_error", message="response_format of type json_schema is unknown")


def generator(provider: FakeProvider) -> OpenAICompatibleGenerator:
    return OpenAICompatibleGenerator(Endpoint(model="local", api_key=KEY, base_url=provider.url))


async def test_a_call_is_one_request_with_a_strict_schema() -> None:
    async with FakeProvider() as provider:
        await generator(provider).generate(BATCH)

    [call] = provider.calls
    assert call.path == "/chat/completions"
    assert call.body["response_format"]["type"] == "json_schema"
    assert call.body["response_format"]["json_schema"]["strict"] is True
    assert [message["role"] for message in call.body["messages"]] == ["system", "user"]
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert "tools" not in call.body


async def test_a_form_that_the_server_does_not_know_is_left_out_from_then_on() -> None:
    async with FakeProvider(OBJECTION, OBJECTION) as provider:
        asked = generator(provider)
        assert (await asked.generate(BATCH)).observations
        await asked.generate(BATCH)

    formats = [call.body.get("response_format", {}).get("type") for call in provider.calls]
    assert formats == ["json_schema", "json_object", None, None]


async def test_a_model_with_the_newer_limit_gets_it() -> None:
    told = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    async with FakeProvider(Status(code=400, kind="unsupported_parameter", message=told)) as provider:
        assert (await generator(provider).generate(BATCH)).observations

    assert [{"max_tokens", "max_completion_tokens"} & set(call.body) for call in provider.calls] == [
        {"max_tokens"},
        {"max_completion_tokens"},
    ]


async def test_a_server_that_objects_to_everything_is_asked_a_bounded_number_of_times() -> None:
    async with FakeProvider(otherwise=OBJECTION) as provider:
        failure = await failure_of("openai-compatible", provider)

    assert failure.kind == "poison"
    assert len(provider.calls) == 3


async def test_an_endpoint_without_a_key_gets_no_authorization() -> None:
    async with FakeProvider() as provider:
        asked = OpenAICompatibleGenerator(Endpoint(model="local", base_url=provider.url))
        with pytest.raises(GenerationFailed) as caught:
            await asked.generate(BATCH)

    assert caught.value.failure.reason.startswith("the provider answered 401"), "the fake wants a key"


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        pytest.param(Answer(stop_reason="content_filter"), "refusal", id="content-filter"),
        pytest.param(Answer(stop_reason="length"), "splittable", id="length"),
        pytest.param(Answer(stop_reason="error"), "transient", id="broken-off"),
        pytest.param(Answer(stop_reason="insufficient_system_resource"), "invalid_output", id="not-ended"),
        pytest.param(completion("tool_calls", content=None, tool_calls=[{"id": "1"}]), "invalid_output", id="tools"),
        pytest.param(completion(content="", tool_calls=[{"id": "1"}]), "invalid_output", id="tools-that-stop"),
        pytest.param(
            Document(content={"choices": [{"error": {"code": 502, "message": "x"}, "finish_reason": "error"}]}),
            "transient",
            id="error-in-a-choice",
        ),
        pytest.param(Status(code=403, message="Your input was flagged"), "refusal", id="openrouter-moderation"),
        pytest.param(Document(content={"error": "model 'x' not found"}), "transient", id="error-as-text"),
    ],
)
async def test_the_dialects_own_failures_have_their_class(outcome: Answer | Document | Status, kind: str) -> None:
    async with FakeProvider(outcome) as provider:
        assert (await failure_of("openai-compatible", provider)).kind == kind


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": TEXT}],
        [{"type": "text", "text": TEXT[:9]}, {"type": "text", "text": TEXT[9:]}, 3, {"type": "image"}],
        f"<think>hm</think>\n{TEXT}",
    ],
    ids=["thinking", "parts", "tags"],
)
@pytest.mark.parametrize("reason", ["stop", None, "eos_token"])
async def test_the_answer_is_found_among_parts_and_thoughts(content: object, reason: str | None) -> None:
    async with FakeProvider(completion(reason, content=content)) as provider:
        [observation] = (await generator(provider).generate(BATCH)).observations

    assert observation.title == "told"


async def test_a_model_that_breaks_the_form_does_not_end_the_form() -> None:
    told = "Generated JSON does not match the expected schema. See 'failed_generation' for more details."
    async with FakeProvider(Status(code=400, kind="json_validate_failed", message=told)) as provider:
        asked = generator(provider)
        with pytest.raises(GenerationFailed) as caught:
            await asked.generate(BATCH)
        await asked.generate(BATCH)

    assert caught.value.failure.kind == "invalid_output"
    assert [call.body["response_format"]["type"] for call in provider.calls] == ["json_schema", "json_schema"]


async def test_a_server_that_does_not_count_is_charged_by_size() -> None:
    answer = {"choices": [{"message": {"content": '{"observations": []}'}, "finish_reason": "stop"}]}
    async with FakeProvider(Document(content=answer)) as provider:
        asked = generator(provider)
        generated = await asked.generate(BATCH)

    assert generated.input_tokens == asked.estimate(BATCH).input_tokens
    assert generated.output_tokens > 0
    assert generated.model == "local"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://ollama:11434/v1", "http://ollama:11434/v1/chat/completions"),
        ("http://ollama:11434/v1//", "http://ollama:11434/v1/chat/completions"),
        ("https://x.example/api/chat/completions/", "https://x.example/api/chat/completions"),
        ("https://x.example/v1?version=3", "https://x.example/v1/chat/completions?version=3"),
    ],
)
def test_a_base_gets_the_path_and_a_whole_endpoint_stays(base: str, url: str) -> None:
    assert completions_url(base) == url
