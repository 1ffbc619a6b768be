import pytest
from pydantic import ValidationError

from commonplace_runtime.domain.prices import Price
from commonplace_runtime.domain.providers import Choice
from commonplace_runtime.domain.quotas import Limits
from commonplace_runtime.entrypoints.terminal import ENVIRONMENT, settings_with
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
    environ = {"COMMONPLACE_DATABASE_URL": "mysql://root:hunter2@db/x", "COMMONPLACE_PROVIDER": "oracle"}
    with pytest.raises(ValidationError) as caught:
        load_settings(environ)
    told = explain(caught.value, environ)
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
    line = explain(caught.value, {variable: value}).splitlines()[1]
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
    assert variable in explain(caught.value, environ)


@pytest.mark.parametrize(("value", "cap"), [("7", 7), (" 7 ", 7), ("0", None), ("", None), ("-1", None)])
@pytest.mark.parametrize("prefix", ["COMMONPLACE_", "CLAUDE_MEM_"])
def test_limits_of_the_environment_are_numbers_and_nothing_is_no_limit(
    prefix: str, value: str, cap: int | None
) -> None:
    names = ("RATE_LIMIT_PER_MIN", "MONTHLY_REQUEST_CAP", "MONTHLY_TOKEN_CAP")
    limits = load_settings({prefix + name: value for name in names}).limits
    assert limits == Limits(requests_per_minute=cap, requests_per_month=cap, tokens_per_month=cap)


@pytest.mark.parametrize(("value", "metered"), [("1", True), ("true", True), ("0", False), ("off", False), ("", False)])
def test_metering_is_a_switch(value: str, metered: bool) -> None:
    assert load_settings({"CLAUDE_MEM_USAGE_METERING": value}).limits.metered is metered


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("CLAUDE_MEM_RATE_LIMIT_PER_MIN", "many", "must be a whole number; 0 or nothing is no limit"),
        ("COMMONPLACE_MONTHLY_TOKEN_CAP", "1e6", "must be a whole number"),
        ("COMMONPLACE_MONTHLY_REQUEST_CAP", "9" * 20, "less than or equal to"),
        ("CLAUDE_MEM_USAGE_METERING", "maybe", "must be 1 or 0"),
        ("CLAUDE_MEM_QUEUE_ENGINE", "sqlite", "must be bullmq or unset"),
        ("CLAUDE_MEM_QUEUE_ENGINE", "bullmq", "needs COMMONPLACE_REDIS_URL (or CLAUDE_MEM_REDIS_URL)"),
        ("CLAUDE_MEM_POSTGRES_POOL_MAX", "0", "greater than or equal to 1"),
        ("CLAUDE_MEM_POSTGRES_SSL", "on", "must be one of disable, allow"),
        ("CLAUDE_MEM_POSTGRES_STATEMENT_TIMEOUT_MS", "soon", "in milliseconds"),
        ("CLAUDE_MEM_POSTGRES_CONNECTION_TIMEOUT_MS", "61000", "less than or equal to 60 (in seconds"),
        ("CLAUDE_MEM_AUTH_MODE", "local-dev", "local-dev is not allowed in Docker"),
    ],
)
def test_a_wrong_setting_is_told_by_the_variable_that_is_set(variable: str, value: str, told: str) -> None:
    environ = {variable: value}
    with pytest.raises(ValidationError) as caught:
        load_settings(environ)
    first, line = explain(caught.value, environ).splitlines()
    assert (first, line.startswith(f"- {variable}: "), told in line) == ("the configuration is invalid:", True, True)


def test_redis_is_found_by_host_and_port_where_no_url_is_given() -> None:
    def redis(**environ: str) -> str | None:
        url = load_settings({f"CLAUDE_MEM_{name}": value for name, value in environ.items()}).redis_url
        return None if url is None else url.get_secret_value()

    assert redis(REDIS_HOST="valkey") == "redis://valkey:6379/0"
    assert redis(REDIS_PORT="7000", QUEUE_ENGINE="bullmq") == "redis://127.0.0.1:7000/0"
    assert redis(REDIS_HOST="::1", REDIS_PORT="7000") == "redis://[::1]:7000/0"
    assert redis(REDIS_HOST="valkey", REDIS_URL="rediss://other/1") == "rediss://other/1"
    assert redis() is None
    environ = {"CLAUDE_MEM_REDIS_PORT": "port"}
    with pytest.raises(ValidationError) as caught:
        load_settings(environ)
    assert "- CLAUDE_MEM_REDIS_HOST and CLAUDE_MEM_REDIS_PORT: must look like" in explain(caught.value, environ)


def test_the_pools_variables_are_understood() -> None:
    settings = load_settings(
        {
            "CLAUDE_MEM_POSTGRES_POOL_MAX": "25",
            "CLAUDE_MEM_POSTGRES_CONNECTION_TIMEOUT_MS": "2500",
            "CLAUDE_MEM_POSTGRES_STATEMENT_TIMEOUT_MS": "15000",
        }
    )
    assert (settings.database_pool_size, settings.database_connect_timeout_seconds) == (25, 2.5)
    assert settings.database_statement_timeout_seconds == 15


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("postgresql://me@db/x", "postgresql://me@db/x?sslmode=require"),
        ("postgresql://me@db/x?a=b", "postgresql://me@db/x?a=b&sslmode=require"),
        ("postgresql://me@db/x?sslmode=disable", "postgresql://me@db/x?sslmode=disable"),
    ],
)
def test_encryption_is_asked_for_where_the_address_says_nothing(url: str, reached: str) -> None:
    settings = load_settings({"CLAUDE_MEM_SERVER_DATABASE_URL": url, "CLAUDE_MEM_POSTGRES_SSL": "require"})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == reached


def test_in_docker_the_runtime_is_a_server() -> None:
    for runtime in ("server", "server-beta"):
        load_settings({"CLAUDE_MEM_DOCKER": "1", "CLAUDE_MEM_RUNTIME": runtime})
    load_settings({"CLAUDE_MEM_RUNTIME": "worker"})
    with pytest.raises(ValidationError, match="server or server-beta"):
        load_settings({"CLAUDE_MEM_DOCKER": "true", "CLAUDE_MEM_RUNTIME": "worker"})


def test_what_is_missing_is_told_with_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    before = ENVIRONMENT.set({"CLAUDE_MEM_AUTH_MODE": "local-dev", "COMMONPLACE_PORT": "many"})
    try:
        with pytest.raises(SystemExit) as ended:
            settings_with("database_url")
    finally:
        ENVIRONMENT.reset(before)
    assert ended.value.code == 78
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "the configuration is invalid:"
    assert sorted(line.split(" ")[1].rstrip(":") for line in told[1:]) == [
        "CLAUDE_MEM_AUTH_MODE",
        "COMMONPLACE_DATABASE_URL",
        "COMMONPLACE_PORT",
    ]
