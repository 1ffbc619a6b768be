"""Failover, the stronger model, and what is left out: the chain that settings build, against two servers."""

from collections.abc import AsyncIterator, Sequence

import pytest

from commonplace_runtime.llm.build import build_generator
from commonplace_runtime.llm.ports import GenerationFailed, Generator
from commonplace_runtime.settings import load_settings
from tests.fakes.provider import KEY, Answer, Document, FakeProvider, Hang, Outcome, Status
from tests.integration.runtime.worker.test_providers import BATCH

NONSENSE = Answer(text="nonsense")


@pytest.fixture
async def first() -> AsyncIterator[FakeProvider]:
    """Claude."""
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def second() -> AsyncIterator[FakeProvider]:
    """Gemini."""
    async with FakeProvider() as provider:
        yield provider


def chain(first: FakeProvider, second: FakeProvider, **more: str) -> Generator:
    return build_generator(
        load_settings(
            {
                "COMMONPLACE_PROVIDER": "anthropic",
                "COMMONPLACE_PROVIDER_BASE_URL": first.url,
                "COMMONPLACE_PROVIDER_FALLBACKS": "gemini:gemini-3.1-flash-lite",
                "COMMONPLACE_GEMINI_BASE_URL": second.url,
                "COMMONPLACE_PROVIDER_TIMEOUT_SECONDS": "2",
                "ANTHROPIC_API_KEY": KEY,
                "GEMINI_API_KEY": KEY,
                **more,
            }
        )
    )


def models(provider: FakeProvider) -> Sequence[str]:
    return [call.model for call in provider.calls]


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        pytest.param(Status(code=503), "transient", id="away"),
        pytest.param(Hang(), "transient", id="hanging"),
        pytest.param(Status(code=429, headers={"retry-after": "9"}), "throttled", id="throttled"),
        pytest.param(Status(code=402), "configuration", id="account-empty"),
        pytest.param(Answer(stop_reason="refusal"), "refusal", id="refusal"),
    ],
)
async def test_the_next_provider_answers_and_the_failure_before_it_is_told(
    first: FakeProvider, second: FakeProvider, outcome: Outcome, kind: str
) -> None:
    first.script.append(outcome)
    asked = chain(first, second)

    generated = await asked.generate(BATCH)

    assert generated.provider == "gemini"
    [failure] = generated.earlier
    assert (failure.kind, failure.provider, failure.credential) == (kind, "anthropic", asked.credentials[0])
    assert (failure.input_tokens > 0) == isinstance(outcome, Answer | Hang)
    assert (len(first.calls), len(second.calls)) == (1, 1)


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(Status(code=400), id="poison"),
        pytest.param(Answer(stop_reason="max_tokens"), id="too-much"),
    ],
)
async def test_a_batch_that_is_itself_at_fault_is_not_handed_on(
    first: FakeProvider, second: FakeProvider, outcome: Outcome
) -> None:
    first.script.append(outcome)
    with pytest.raises(GenerationFailed) as caught:
        await chain(first, second).generate(BATCH)

    assert caught.value.failure.provider == "anthropic"
    assert not second.calls


async def test_an_answer_without_form_goes_once_to_the_stronger_model(
    first: FakeProvider, second: FakeProvider
) -> None:
    first.script.append(NONSENSE)

    generated = await chain(first, second).generate(BATCH)

    assert models(first) == ["claude-haiku-5-5", "claude-sonnet-5-5"]
    assert generated.model == "claude-sonnet-5-5"
    assert [(failure.model, failure.input_tokens) for failure in generated.earlier] == [("claude-haiku-5-5", 100)]
    assert not second.calls


async def test_after_the_stronger_model_comes_the_next_provider(first: FakeProvider, second: FakeProvider) -> None:
    first.otherwise = NONSENSE

    generated = await chain(first, second).generate(BATCH)

    assert generated.provider == "gemini"
    assert [failure.model for failure in generated.earlier] == ["claude-haiku-5-5", "claude-sonnet-5-5"]
    assert len(first.calls) == 2


async def test_a_provider_that_is_away_is_not_asked_for_a_stronger_model(
    first: FakeProvider, second: FakeProvider
) -> None:
    first.otherwise = Status(code=500)

    await chain(first, second).generate(BATCH)

    assert models(first) == ["claude-haiku-5-5"]


@pytest.mark.parametrize("off", ["", "none", "None"])
async def test_the_stronger_model_can_be_switched_off(first: FakeProvider, second: FakeProvider, off: str) -> None:
    first.otherwise = NONSENSE

    await chain(first, second, COMMONPLACE_ESCALATION_MODEL=off).generate(BATCH)

    assert models(first) == ["claude-haiku-5-5"]


async def test_the_stronger_model_can_be_chosen(first: FakeProvider, second: FakeProvider) -> None:
    first.script.append(NONSENSE)

    await chain(first, second, COMMONPLACE_ESCALATION_MODEL="claude-opus-5-5").generate(BATCH)

    assert models(first) == ["claude-haiku-5-5", "claude-opus-5-5"]


async def test_a_paused_provider_is_passed_over(first: FakeProvider, second: FakeProvider) -> None:
    asked = chain(first, second)

    generated = await asked.generate(BATCH, avoid=[asked.credentials[0]])

    assert generated.provider == "gemini"
    assert generated.earlier == ()
    assert not first.calls


async def test_where_all_are_paused_nobody_is_called(first: FakeProvider, second: FakeProvider) -> None:
    asked = chain(first, second)
    with pytest.raises(GenerationFailed) as caught:
        await asked.generate(BATCH, avoid=asked.credentials)

    assert caught.value.failure.kind == "throttled"
    assert caught.value.failure.credential is None, "nobody is paused for it once more"
    assert not first.calls
    assert not second.calls


async def test_a_credential_that_was_refused_is_not_tried_with_another_model(
    first: FakeProvider, second: FakeProvider
) -> None:
    first.otherwise = Status(code=429)
    fallbacks = "anthropic:claude-sonnet-5-5,gemini"

    generated = await chain(first, second, COMMONPLACE_PROVIDER_FALLBACKS=fallbacks).generate(BATCH)

    assert generated.provider == "gemini"
    assert models(first) == ["claude-haiku-5-5"]


@pytest.mark.parametrize(
    ("of_first", "of_second", "kind"),
    [
        pytest.param(Status(code=500), Status(code=429), "throttled", id="somebody-said-when"),
        pytest.param(Status(code=401), Status(code=500), "configuration", id="an-administrator-must-act"),
        pytest.param(Status(code=429), NONSENSE, "invalid_output", id="an-answer-was-paid-for"),
        pytest.param(Answer(stop_reason="refusal"), Status(code=500), "refusal", id="a-model-refused"),
        pytest.param(Status(code=429), Status(code=400), "poison", id="the-batch-is-at-fault"),
    ],
)
async def test_of_many_failures_the_one_that_decides_speaks(
    first: FakeProvider, second: FakeProvider, of_first: Outcome, of_second: Outcome, kind: str
) -> None:
    first.otherwise, second.otherwise = of_first, of_second
    with pytest.raises(GenerationFailed) as caught:
        await chain(first, second).generate(BATCH)

    told = [caught.value.failure, *caught.value.earlier]
    assert caught.value.failure.kind == kind
    assert sorted(failure.provider or "" for failure in told) == ["anthropic", "gemini"]


@pytest.mark.parametrize("waits", [("9", "600"), ("600", "9")])
async def test_of_two_that_are_throttled_the_sooner_one_is_waited_for(
    first: FakeProvider, second: FakeProvider, waits: tuple[str, str]
) -> None:
    for provider, wait in zip((first, second), waits, strict=True):
        provider.otherwise = Status(code=429, headers={"retry-after": wait})
    with pytest.raises(GenerationFailed) as caught:
        await chain(first, second).generate(BATCH)

    assert caught.value.failure.retry_after_seconds == 9
    assert len(caught.value.earlier) == 1


async def test_rules_at_the_end_answer_when_no_model_does(first: FakeProvider, second: FakeProvider) -> None:
    first.otherwise = second.otherwise = Document(content={})
    asked = chain(first, second, COMMONPLACE_PROVIDER_FALLBACKS="gemini,extractive")

    generated = await asked.generate(BATCH)

    assert generated.provider == "extractive"
    assert [failure.provider for failure in generated.earlier] == ["anthropic", "anthropic", "gemini"]
    assert asked.credentials[-1] == "extractive"


async def test_a_batch_is_estimated_for_who_is_called_first(first: FakeProvider, second: FakeProvider) -> None:
    estimate = chain(first, second).estimate(BATCH)

    assert estimate is not None
    assert (estimate.provider, estimate.model) == ("anthropic", "claude-haiku-5-5")
