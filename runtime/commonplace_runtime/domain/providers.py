"""Which providers there are, how a setting spells them, and what each needs to be called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

ProviderName: TypeAlias = Literal["extractive", "anthropic", "gemini", "openai-compatible", "openrouter"]

_SPELLINGS: Final[Mapping[str, str]] = {"claude": "anthropic", "openai": "openai-compatible"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One provider of the chain. `model` is verbatim; empty: the provider's default."""

    name: ProviderName
    model: str = ""


def provider_named(text: str) -> ProviderName:
    """The provider by any of its spellings. Raises ValueError that names them all."""
    name = _SPELLINGS.get(text.strip().lower(), text.strip().lower())
    if name not in get_args(ProviderName):
        raise ValueError(f"must be one of {', '.join(get_args(ProviderName))}")
    return cast("ProviderName", name)


def parse_choices(text: str) -> tuple[Choice, ...]:
    """`gemini, anthropic:claude-sonnet-5-5`: what follows the first colon is the model. Raises ValueError."""
    parts = [part.partition(":") for part in text.split(",") if part.strip()]
    return tuple(Choice(name=provider_named(name), model=model.strip()) for name, _, model in parts)
