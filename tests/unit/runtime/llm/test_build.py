"""What the settings of providers mean, and what is told when they cannot work."""

import pytest
import structlog

from commonplace_runtime.llm.build import build_generator
from commonplace_runtime.llm.extractive import ExtractiveGenerator
from commonplace_runtime.settings import load_settings


def faults(capsys: pytest.CaptureFixture[str], **environ: str) -> list[str]:
    with pytest.raises(SystemExit) as exit_:
        build_generator(load_settings(environ))
    assert exit_.value.code == 78
    return capsys.readouterr().err.splitlines()[1:]


def test_without_a_word_the_rules_alone_work() -> None:
    assert isinstance(build_generator(load_settings({})), ExtractiveGenerator)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("claude", "CLAUDE_MEM_ANTHROPIC_API_KEY"),
        ("gemini", "CLAUDE_MEM_GEMINI_API_KEY"),
        ("openrouter", "OPENROUTER_API_KEY"),
        ("openai", "OPENAI_API_KEY"),
    ],
)
def test_every_spelling_builds_its_provider(name: str, key: str) -> None:
    wanted = {"claude": "anthropic", "openai": "openai-compatible"}.get(name, name)
    environ = {"CLAUDE_MEM_SERVER_PROVIDER": name, key: "k", "COMMONPLACE_MODEL": "m"}
    if name == "openai":
        environ["COMMONPLACE_PROVIDER_BASE_URL"] = "http://ollama:11434/v1"
    assert build_generator(load_settings(environ)).provider == wanted


def test_a_server_of_ones_own_needs_no_key() -> None:
    environ = {
        "COMMONPLACE_PROVIDER": "openai-compatible",
        "COMMONPLACE_MODEL": "qwen3:8b",
        "COMMONPLACE_PROVIDER_BASE_URL": "http://ollama:11434/v1",
    }
    [credential] = build_generator(load_settings(environ)).credentials
    assert credential.startswith("openai-compatible:")


def test_all_that_a_chain_lacks_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = faults(
        capsys,
        COMMONPLACE_PROVIDER="openai",
        COMMONPLACE_PROVIDER_FALLBACKS="gemini, openrouter, anthropic",
        ANTHROPIC_API_KEY="two words",
    )
    assert [line.partition(":")[0] for line in told] == [
        "- COMMONPLACE_PROVIDER_BASE_URL",
        "- COMMONPLACE_MODEL",
        "- GEMINI_API_KEY",
        "- OPENROUTER_API_KEY",
        "- COMMONPLACE_PROVIDER_FALLBACKS",
        "- ANTHROPIC_API_KEY",
    ]
    assert "https://api.openai.com/v1" in told[0]
    assert "openrouter:<model>" in told[4]
    assert "two words" not in " ".join(told)


def test_a_blank_key_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    [told] = faults(capsys, COMMONPLACE_PROVIDER="anthropic", ANTHROPIC_API_KEY=" \n")
    assert told == "- ANTHROPIC_API_KEY: is needed because COMMONPLACE_PROVIDER names anthropic"


def test_nothing_comes_after_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    [told] = faults(capsys, COMMONPLACE_PROVIDER_FALLBACKS="anthropic", ANTHROPIC_API_KEY="k")
    assert told.startswith("- COMMONPLACE_PROVIDER_FALLBACKS: must be empty")


def test_a_model_without_a_price_is_told_of() -> None:
    environ = {"COMMONPLACE_PROVIDER": "gemini", "COMMONPLACE_MODEL": "gemini-9", "GEMINI_API_KEY": "k"}
    with structlog.testing.capture_logs() as logged:
        build_generator(load_settings(environ))
    [line] = logged
    assert (line["model"], line["set"]) == ("gemini-9", "COMMONPLACE_MODEL_PRICES")
    assert line["charged_as"] == "10 times the dearest known"

    with structlog.testing.capture_logs() as logged:
        build_generator(
            load_settings({**environ, "COMMONPLACE_MODEL_PRICES": '{"gemini-9": {"input": 1, "output": 2}}'})
        )
    assert not logged
