"""Every model provider against a server that speaks its API: the same outcomes, the same classes."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final

import pytest

from commonplace_runtime.domain.observations import SourceEvent
from commonplace_runtime.domain.retry import Failure
from commonplace_runtime.llm.anthropic import AnthropicGenerator
from commonplace_runtime.llm.gemini import GeminiGenerator
from commonplace_runtime.llm.model import Endpoint, ModelGenerator
from commonplace_runtime.llm.openai_compatible import OpenAICompatibleGenerator
from commonplace_runtime.llm.ports import Batch, GenerationFailed
from tests.fakes.provider import (
    KEY,
    Answer,
    Document,
    FakeProvider,
    Hang,
    NotJson,
    Outcome,
    Status,
    observations,
)

EVENT = SourceEvent(
    event_type="assistant_message",
    source_adapter="hook",
    platform_source="claude",
    occurred_at=datetime(2026, 11, 21, tzinfo=UTC),
    payload={"last_assistant_message": "Staging listens on <5433>."},
)
BATCH = Batch(project_name="shop", events=[EVENT, EVENT], recent=["Staging has moved"])
GENERATORS: Final[dict[str, tuple[str, Callable[[Endpoint], ModelGenerator]]]] = {
    "anthropic": ("claude-haiku-5-5", AnthropicGenerator),
    "gemini": ("gemini-3.1-flash-lite", GeminiGenerator),
    "openai-compatible": ("local-model", OpenAICompatibleGenerator),
}
OVER_HTTP: Final = ("gemini", "openai-compatible")


@pytest.fixture(params=list(GENERATORS))
def name(request: pytest.FixtureRequest) -> str:
    """Of each provider in turn."""
    return str(request.param)


def generator(name: str, provider: FakeProvider, *, key: str = KEY, timeout: float = 5.0) -> ModelGenerator:
    model, make = GENERATORS[name]
    return make(
        Endpoint(
            model=model,
            api_key=key,
            base_url=provider.url,
            timeout_seconds=timeout,
            redact=lambda text: text.replace("Staging", "[x]"),
        )
    )


async def failure_of(name: str, provider: FakeProvider, *, key: str = KEY, timeout: float = 5.0) -> Failure:
    asked = generator(name, provider, key=key, timeout=timeout)
    with pytest.raises(GenerationFailed) as caught:
        await asked.generate(BATCH)
    await asked.aclose()
    return caught.value.failure


async def test_a_batch_is_one_call_and_its_answer_cites_the_events(name: str) -> None:
    async with FakeProvider() as provider:
        generated = await generator(name, provider).generate(BATCH)

    [call] = provider.calls
    assert call.model == GENERATORS[name][0]
    assert len(call.events) == 2
    assert "&lt;5433&gt;" in call.prompt
    assert "Staging" not in call.prompt, "what the redaction finds does not leave"
    assert [observation.evidence for observation in generated.observations] == [(1,), (2,)]
    assert (generated.provider, generated.model) == (name, call.model)
    assert (generated.input_tokens, generated.output_tokens) == (100, 20)


async def test_an_answer_brings_the_summary_and_what_it_replaces(name: str) -> None:
    text = (
        '{"observations": [{"type": "change", "title": "t", "body": "b", "evidence": [2], "replaces": ["m1", "m2"]}],'
        ' "session": {"request": "move staging"}, "skip_reason": null}'
    )
    async with FakeProvider(Answer(text=text)) as provider:
        generated = await generator(name, provider).generate(BATCH)

    assert [observation.replaces for observation in generated.observations] == [(1,)]
    assert generated.summary is not None
    assert generated.summary.request == "move staging"


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        pytest.param(Status(code=400, kind="invalid_request_error"), "poison", id="400"),
        pytest.param(Status(code=400, message="Your credit balance is too low"), "configuration", id="400-billing"),
        pytest.param(Status(code=400, message="prompt is too long: 300000 tokens"), "splittable", id="400-too-long"),
        pytest.param(Status(code=400, message="API key not valid. Please pass one"), "configuration", id="400-key"),
        pytest.param(Status(code=400, message="flagged by moderation"), "refusal", id="400-moderation"),
        pytest.param(Status(code=402), "configuration", id="402"),
        pytest.param(Status(code=403, kind="permission_error"), "configuration", id="403"),
        pytest.param(Status(code=404, kind="not_found_error"), "configuration", id="404-model"),
        pytest.param(Status(code=408), "transient", id="408"),
        pytest.param(Status(code=409), "transient", id="409"),
        pytest.param(Status(code=413, kind="request_too_large"), "splittable", id="413"),
        pytest.param(Status(code=422), "poison", id="422"),
        pytest.param(Status(code=429, kind="rate_limit_error"), "throttled", id="429"),
        pytest.param(Status(code=429, kind="insufficient_quota"), "configuration", id="429-quota"),
        pytest.param(Status(code=500), "transient", id="500"),
        pytest.param(Status(code=502), "transient", id="502"),
        pytest.param(Status(code=503), "transient", id="503"),
        pytest.param(Status(code=529, kind="overloaded_error"), "transient", id="529"),
        pytest.param(Answer(text="", stop_reason="refusal"), "refusal", id="refusal"),
        pytest.param(Answer(text='{"observations": [{"ti', stop_reason="max_tokens"), "splittable", id="max-tokens"),
        pytest.param(Answer(text='{"observations": [{"ti'), "invalid_output", id="truncated"),
        pytest.param(Answer(text="Sure! Here you go."), "invalid_output", id="prose"),
        pytest.param(Answer(text='{"observations": [{"title": 3}]}'), "invalid_output", id="wrong-types"),
        pytest.param(Answer(text='{"observations": {}}'), "invalid_output", id="not-a-list"),
        pytest.param(NotJson(), "invalid_output", id="a-proxys-page"),
        pytest.param(NotJson(body='{"id": "x", "choi'), "invalid_output", id="half-a-document"),
        pytest.param(Document(content={}), "invalid_output", id="empty-document"),
        pytest.param(Document(content=[1, None]), "invalid_output", id="another-document"),
        pytest.param(
            Document(content={"choices": [{}], "candidates": [1], "content": 7}), "invalid_output", id="malformed"
        ),
        pytest.param(
            Document(content={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            "transient",
            id="200-overloaded",
        ),
        pytest.param(
            Document(content={"error": {"code": 402, "message": "out of money"}}), "configuration", id="200-402"
        ),
        pytest.param(Document(content={"error": {"code": 429, "message": "slow"}}), "throttled", id="200-429"),
    ],
)
async def test_every_outcome_has_its_class(name: str, outcome: Outcome, kind: str) -> None:
    async with FakeProvider(outcome) as provider:
        failure = await failure_of(name, provider)

    assert failure.kind == kind
    assert len(provider.calls) == 1, "waiting is the job's business"
    assert (failure.provider, failure.model) == (name, GENERATORS[name][0])
    if isinstance(outcome, Answer):
        assert (failure.input_tokens, failure.output_tokens) == (100, 20), "a refused answer is billed too"
    if isinstance(outcome, Status):
        assert failure.request_id == "req_fake"
        assert outcome.message not in failure.reason, "the body may quote the prompt"


@pytest.mark.parametrize("text", ["", "  \n", observations()], ids=["empty", "blank", "skipped"])
async def test_an_empty_answer_means_nothing_to_record(name: str, text: str) -> None:
    async with FakeProvider(Answer(text=text)) as provider:
        generated = await generator(name, provider).generate(BATCH)

    assert not generated.observations
    assert generated.skip_reason


@pytest.mark.parametrize("nonsense", [-5, 1.5, "many", True, [7]])
async def test_a_count_that_is_none_is_replaced_by_the_estimate(name: str, nonsense: Any) -> None:
    async with FakeProvider(Answer(input_tokens=nonsense, output_tokens=nonsense)) as provider:
        asked = generator(name, provider)
        generated = await asked.generate(BATCH)

    assert generated.input_tokens == asked.estimate(BATCH).input_tokens
    assert 0 < generated.output_tokens < 1000


async def test_no_count_is_larger_than_any_call(name: str) -> None:
    async with FakeProvider(Answer(input_tokens=10**18, output_tokens=10**18)) as provider:
        generated = await generator(name, provider).generate(BATCH)

    assert (generated.input_tokens, generated.output_tokens) == (10**9, 10**9)


async def test_retry_after_is_kept_as_seconds_and_as_a_date(name: str) -> None:
    async with FakeProvider(
        Status(code=429, headers={"retry-after": "17"}),
        Status(code=429, headers={"retry-after": format_datetime(datetime(2099, 1, 1, tzinfo=UTC), usegmt=True)}),
        Status(code=429, headers={"retry-after": "soon"}),
    ) as provider:
        waits = [(await failure_of(name, provider)).retry_after_seconds for _ in range(3)]

    assert waits[0] == 17.0
    assert waits[1] is not None
    assert waits[1] > 3600
    assert waits[2] is None


async def test_a_wrong_key_names_the_variable_and_never_the_key(name: str) -> None:
    variable = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}.get(name, "OPENAI_API_KEY")
    async with FakeProvider() as provider:
        failure = await failure_of(name, provider, key="sk-wrong")

    assert failure.kind == "configuration"
    assert variable in failure.reason
    assert "sk-wrong" not in repr(failure)


async def test_a_provider_that_repeats_key_and_prompt_has_neither_in_the_failure(name: str) -> None:
    told = Status(code=400, kind=f"bad key {KEY}", message=f"{KEY} sent Staging", headers={"request-id": f"<{KEY}>"})
    async with FakeProvider(told) as provider:
        asked = generator(name, provider)
        with pytest.raises(GenerationFailed) as caught:
            await asked.generate(BATCH)

    shown = f"{caught.value} {caught.value.failure!r} {asked!r} {asked.credentials}"
    assert KEY not in shown
    assert "Staging" not in shown


async def test_a_provider_that_hangs_is_left_after_the_time_out(name: str) -> None:
    async with FakeProvider(Hang()) as provider:
        assert (await failure_of(name, provider, timeout=0.2)).kind == "transient"


async def test_a_provider_that_is_away_is_transient_and_bills_nothing(name: str) -> None:
    async with FakeProvider() as provider:
        pass
    failure = await failure_of(name, provider)
    assert (failure.kind, failure.input_tokens, failure.output_tokens) == ("transient", 0, 0)


async def test_a_call_that_is_left_counts_as_estimated(name: str) -> None:
    async with FakeProvider(Hang()) as provider:
        failure = await failure_of(name, provider, timeout=0.2)
        estimate = generator(name, provider).estimate(BATCH)

    assert (failure.input_tokens, failure.output_tokens) == (estimate.input_tokens, estimate.output_tokens)


async def test_a_call_whose_connection_breaks_counts_as_estimated(name: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    model, make = GENERATORS[name]
    asked = make(Endpoint(model=model, api_key=KEY, base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    async with server:
        with pytest.raises(GenerationFailed) as caught:
            await asked.generate(BATCH)
    failure, estimate = caught.value.failure, asked.estimate(BATCH)
    await asked.aclose()

    assert failure.kind == "transient"
    assert (failure.input_tokens, failure.output_tokens) == (estimate.input_tokens, estimate.output_tokens)


@pytest.mark.parametrize("name", OVER_HTTP)
async def test_an_answer_without_end_is_not_read_to_its_end(name: str) -> None:
    async with FakeProvider(NotJson(body="[" * 5_000_000)) as provider:
        failure = await failure_of(name, provider)

    assert failure.kind == "invalid_output"
    assert "longer than" in failure.reason


@pytest.mark.parametrize("name", OVER_HTTP)
async def test_a_key_is_not_carried_to_another_address(name: str) -> None:
    async with FakeProvider() as other, FakeProvider(Status(code=307, headers={"location": other.url})) as provider:
        failure = await failure_of(name, provider)

    assert failure.kind == "configuration"
    assert not other.calls


def test_a_credential_is_one_endpoint_with_one_key(name: str) -> None:
    def made(key: str, url: str) -> str:
        model, make = GENERATORS[name]
        [credential] = make(Endpoint(model=model, api_key=key, base_url=url)).credentials
        return credential

    here = made("k", "https://a.example")
    assert here == made("k", "https://a.example")
    assert len({here, made("k", "https://b.example"), made("other", "https://a.example")}) == 3
    assert here.startswith(f"{name}:")


def test_an_endpoint_does_not_show_its_key() -> None:
    assert KEY not in repr(Endpoint(model="m", api_key=KEY, base_url=f"https://{KEY}.example"))


async def test_an_estimate_covers_what_the_call_then_sends(name: str) -> None:
    async with FakeProvider() as provider:
        asked = generator(name, provider)
        estimate = asked.estimate(BATCH)
        await asked.generate(BATCH)

    assert estimate.input_tokens * 3 >= len(provider.calls[0].prompt)
    assert (estimate.provider, estimate.model, estimate.output_tokens) == (name, GENERATORS[name][0], 4096)
