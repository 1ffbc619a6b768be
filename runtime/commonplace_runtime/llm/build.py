"""The generator that the settings describe, or everything that is wrong with them at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from pydantic import SecretStr

from commonplace_runtime import contract
from commonplace_runtime.domain.prices import UNKNOWN_FACTOR, listed_name
from commonplace_runtime.domain.providers import Choice, ProviderName
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.llm.chain import ChainedGenerator, Step
from commonplace_runtime.llm.extractive import ExtractiveGenerator
from commonplace_runtime.llm.model import Endpoint
from commonplace_runtime.llm.ports import Generator
from commonplace_runtime.settings import Settings, exit_misconfigured

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """What a provider must be given. `model` and `stronger`: defaults; empty: there is none."""

    key_variable: str
    model: str = ""
    stronger: str = ""
    is_key_needed: bool = True
    base_url_example: str = ""


_NEEDS: Final[Mapping[ProviderName, _Needs]] = {
    "anthropic": _Needs(
        key_variable=contract.ENV_ANTHROPIC_API_KEY, model="claude-haiku-5-5", stronger="claude-sonnet-5-5"
    ),
    "gemini": _Needs(key_variable=contract.ENV_GEMINI_API_KEY, model="gemini-3.1-flash-lite"),
    "openrouter": _Needs(key_variable=contract.ENV_OPENROUTER_API_KEY),
    # No default address: what is meant for a server of one's own must not go to somebody else's by an oversight.
    "openai-compatible": _Needs(
        key_variable=contract.ENV_OPENAI_API_KEY, is_key_needed=False, base_url_example="https://api.openai.com/v1"
    ),
}


def build_generator(settings: Settings) -> Generator:
    """
    The chain of `provider` and `provider_fallbacks`; without models, the rules alone.

    Exits with 78 and a line for each variable that is missing or wrong.
    """
    faults = provider_faults(settings)
    if faults:
        exit_misconfigured(faults)
    steps = [step for place, choice in enumerate(_chosen(settings)) for step in _steps(settings, choice, place)]
    return steps[0].generator if len(steps) == 1 and settings.provider == "extractive" else ChainedGenerator(steps)


def provider_faults(settings: Settings) -> list[str]:
    """A line for each variable of the chain that is missing or wrong."""
    choices = _chosen(settings)
    faults = [fault for place, choice in enumerate(choices) for fault in _faults(settings, choice, place)]
    if any(choice.name == "extractive" for choice in choices[:-1]):
        faults.append(
            f"{contract.ENV_PROVIDER_FALLBACKS}: must be empty where extractive comes before it; extractive never fails"
        )
    return list(dict.fromkeys(faults))


def _chosen(settings: Settings) -> list[Choice]:
    return [Choice(name=settings.provider, model=settings.model), *settings.provider_fallbacks]


def _faults(settings: Settings, choice: Choice, place: int) -> list[str]:
    needs = _NEEDS.get(choice.name)
    if needs is None:
        return []
    variable = contract.ENV_PROVIDER_FALLBACKS if place else contract.ENV_PROVIDER
    because = f"is needed because {variable} names {choice.name}"
    found: list[str] = []
    key = _key(settings, choice.name)
    if not key and needs.is_key_needed:
        found.append(f"{needs.key_variable}: {because}")
    elif not (key.isascii() and key.isprintable() and " " not in key):
        found.append(f"{needs.key_variable}: holds characters that no key has; paste it again")
    if needs.base_url_example and not _base_url(settings, choice.name):
        name = contract.ENV_PROVIDER_BASE_URL if choice.name == settings.provider else contract.ENV_OPENAI_BASE_URL
        found.append(f"{name}: {because}; {needs.base_url_example} for OpenAI's own")
    if not (choice.model or needs.model):
        name, example = (variable, f"{choice.name}:<model>") if place else (contract.ENV_MODEL, "the model's name")
        found.append(f"{name}: {because}, which has no default model; write {example}")
    return found


def _steps(settings: Settings, choice: Choice, place: int) -> list[Step]:
    needs = _NEEDS.get(choice.name)
    if needs is None:
        return [Step(generator=ExtractiveGenerator())]
    model = choice.model or needs.model
    steps = [Step(generator=_generator(settings, choice.name, model))]
    stronger = _stronger(settings, needs, place)
    if stronger and stronger != model:
        steps.append(Step(generator=_generator(settings, choice.name, stronger), is_stronger=True))
    return steps


def _stronger(settings: Settings, needs: _Needs, place: int) -> str:
    """The setting names a model of the first provider; to switch it off means all of them."""
    told = settings.escalation_model
    if told is None or (told and place):
        return needs.stronger
    return told


def _generator(settings: Settings, name: ProviderName, model: str) -> Generator:
    endpoint = Endpoint(
        model=model,
        api_key=_key(settings, name),
        base_url=_base_url(settings, name),
        timeout_seconds=settings.provider_timeout_seconds,
        redact=_redacted,
    )
    if listed_name(model, settings.prices) is None:
        charged_as = f"{UNKNOWN_FACTOR} times the dearest known"
        log.warning("model_price_unknown", model=model, charged_as=charged_as, set=contract.ENV_MODEL_PRICES)
    match name:
        case "anthropic":
            # Half a second and 80 MB that only this choice should cost.
            from commonplace_runtime.llm.anthropic import AnthropicGenerator

            return AnthropicGenerator(endpoint)
        case "gemini":
            from commonplace_runtime.llm.gemini import GeminiGenerator

            return GeminiGenerator(endpoint)
        case _:
            from commonplace_runtime.llm.openai_compatible import OpenAICompatibleGenerator

            return OpenAICompatibleGenerator(endpoint, provider=name)


def _key(settings: Settings, name: ProviderName) -> str:
    keys: Mapping[ProviderName, SecretStr | None] = {
        "anthropic": settings.anthropic_api_key,
        "gemini": settings.gemini_api_key,
        "openrouter": settings.openrouter_api_key,
        "openai-compatible": settings.openai_api_key,
    }
    key = keys[name]
    return key.get_secret_value().strip() if key is not None else ""


def _base_url(settings: Settings, name: ProviderName) -> str:
    """`COMMONPLACE_PROVIDER_BASE_URL` is the first provider's, wherever else in the chain that stands."""
    urls: Mapping[ProviderName, str] = {
        "anthropic": settings.anthropic_base_url,
        "gemini": settings.gemini_base_url,
        "openrouter": settings.openrouter_base_url,
        "openai-compatible": settings.openai_base_url,
    }
    return (settings.provider_base_url if name == settings.provider else "") or urls[name]


def _redacted(text: str) -> str:
    clean = redact(text).value
    return clean if isinstance(clean, str) else ""
