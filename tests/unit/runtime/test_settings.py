import pytest
from pydantic import ValidationError

from commonplace_runtime.domain.prices import Price
from commonplace_runtime.domain.providers import Choice
from commonplace_runtime.settings import explain, load_settings


def test_the_documented_server_variables_are_accepted_and_ours_win() -> None:
    settings = load_settings({"CLAUDE_MEM_SERVER_PORT": "1234", "CLAUDE_MEM_PUBLIC_URL": "https://a.example/"})
    assert (settings.port, settings.public_url) == (1234, "https://a.example")
    assert load_settings({"CLAUDE_MEM_SERVER_PORT": "1234", "COMMONPLACE_PORT": "5678"}).port == 5678


def test_an_empty_variable_counts_as_unset() -> None:
    settings = load_settings(
        {"ANTHROPIC_API_KEY": "", "CLAUDE_MEM_ANTHROPIC_API_KEY": "second", "COMMONPLACE_HOST": ""}
    )
    assert settings.anthropic_api_key is not None
    assert settings.anthropic_api_key.get_secret_value() == "second"
    assert settings.host == "127.0.0.1"


def test_every_fault_is_told_at_once_without_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        load_settings({"COMMONPLACE_DATABASE_URL": "mysql://root:hunter2@db/x", "COMMONPLACE_PROVIDER": "oracle"})
    told = explain(caught.value)
    assert "COMMONPLACE_DATABASE_URL: must look like postgresql://" in told
    assert "COMMONPLACE_PROVIDER: must be one of extractive, anthropic, gemini, openai-compatible, openrouter" in told
    assert "hunter2" not in told


def test_secrets_do_not_show_in_the_settings_text() -> None:
    settings = load_settings({"COMMONPLACE_DATABASE_URL": "postgresql://me:hunter2@db/x"})
    assert "hunter2" not in repr(settings)


def test_fallbacks_name_providers_and_their_models() -> None:
    settings = load_settings({"COMMONPLACE_PROVIDER_FALLBACKS": "claude, openai:qwen3:8b ,"})
    assert settings.provider_fallbacks == (
        Choice(name="anthropic"),
        Choice(name="openai-compatible", model="qwen3:8b"),
    )


@pytest.mark.parametrize(("given", "model"), [(" claude-sonnet-5-5\n", "claude-sonnet-5-5"), (" ", "")])
def test_blanks_around_a_model_are_no_part_of_its_name(given: str, model: str) -> None:
    settings = load_settings({"COMMONPLACE_MODEL": given, "COMMONPLACE_ESCALATION_MODEL": given})
    assert (settings.model, settings.escalation_model) == (model, model)


def test_own_prices_come_before_the_listed_ones() -> None:
    told = '{"claude-haiku-5-5": {"input": 1, "output": 2}, "mine": {"input": 0, "output": 0}}'
    prices = load_settings({"COMMONPLACE_MODEL_PRICES": told}).prices
    assert prices["claude-haiku-5-5"] == Price(input=1, output=2)
    assert prices["mine"] == Price(input=0, output=0)
    assert "claude-sonnet-5-5" in prices


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("COMMONPLACE_PROVIDER_FALLBACKS", "gemini,oracle:x", "must be one of extractive, anthropic"),
        ("COMMONPLACE_MODEL_PRICES", "cheap", "must be JSON such as"),
        (
            "COMMONPLACE_MODEL_PRICES",
            '{"m": {"input": -1, "output": 2}}',
            "m: input: Input should be greater than or equal to 0",
        ),
        ("COMMONPLACE_MODEL_PRICES", '{"m": {"in": 1}}', "m: input: Field required"),
        ("COMMONPLACE_MODEL_PRICES", '{"m": {"input": 0, "output": 1e300}}', "m: output: Input should be less than"),
        ("COMMONPLACE_MODEL_PRICES", '{"m": 3}', "m: Input should be"),
        ("COMMONPLACE_PROVIDER_BASE_URL", "ollama:11434", "must start with http"),
        ("COMMONPLACE_GEMINI_BASE_URL", "https://me:hunter2@proxy", "without a password"),
        ("COMMONPLACE_OPENROUTER_BASE_URL", "http://[", "must look like https://host/path"),
        ("COMMONPLACE_PROVIDER_TIMEOUT_SECONDS", "0", "greater than 0"),
    ],
)
def test_a_wrong_provider_setting_names_its_variable(variable: str, value: str, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        load_settings({variable: value})
    line = explain(caught.value).splitlines()[1]
    assert line.startswith(f"- {variable}: ")
    assert told in line
    assert "hunter2" not in line


def test_keys_do_not_show_in_the_settings_text() -> None:
    names = ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY", "CLAUDE_MEM_OPENROUTER_API_KEY")
    settings = load_settings(dict.fromkeys(names, "sk-hunter2"))
    assert settings.openrouter_api_key is not None
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CLAUDE_MEM_AUTH_MODE", "local-dev"), ("CLAUDE_MEM_ALLOW_LOCAL_DEV_BYPASS", "1"), ("COMMONPLACE_AUTH_MODE", "")],
)
def test_a_way_round_keys_is_refused_and_named(variable: str, value: str) -> None:
    environ = {variable: value}
    if not value:
        assert load_settings(environ).auth_mode == "api-key"
        return
    with pytest.raises(ValidationError) as caught:
        load_settings(environ)
    assert variable in explain(caught.value)
