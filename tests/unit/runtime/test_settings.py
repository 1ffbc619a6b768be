import pytest
from pydantic import ValidationError

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
    assert "COMMONPLACE_PROVIDER: Input should be 'extractive' or 'anthropic'" in told
    assert "hunter2" not in told


def test_secrets_do_not_show_in_the_settings_text() -> None:
    settings = load_settings({"COMMONPLACE_DATABASE_URL": "postgresql://me:hunter2@db/x"})
    assert "hunter2" not in repr(settings)
