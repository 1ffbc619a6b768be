import json
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.secret_patterns import SHAPES

# Assembled, so that no scanner of this repository mistakes an example for a leak.
SECRETS = {
    "aws-key-id": "AKIA" + "IOSFODNN7EXAMPLE",
    "github-token": "ghp_" + "a1B2" * 9,
    "github-pat": "github_pat_" + "11ABCDEFG0" * 4,
    "gitlab-token": "glpat-" + "x1Y2z3A4b5" * 2,
    "slack-token": "xoxb-" + "123456789012-abcdefGHIJ",
    "slack-hook": "hooks.slack.com/services/" + "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    "stripe-key": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "anthropic-key": "sk-ant-" + "api03-Zm9vYmFyYmF6cXV4",
    "openai-key": "sk-" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
    "google-key": "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "npm-token": "npm_" + "a1B2" * 9,
    "our-key": "cm_" + "0123456789abcdef" + "_" + "Z" * 43 + "_" + "abc123",
    "old-key": "cmem_" + "0123456789abcdef" * 3,
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}


def text_of(value: Json) -> str:
    clean = redact(value).value
    assert isinstance(clean, str)
    return clean


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "wrap", ["{}", "export X={}\n", '"{}"', "https://h/?k={}&x=1", "Bearer {}", "中{}文", "a,{};b"]
)
def test_a_secret_is_replaced_wherever_it_stands(secret: str, wrap: str) -> None:
    found = redact(wrap.format(secret))
    assert secret not in cast("str", found.value)
    assert "[redacted:" in cast("str", found.value)
    assert sum(found.secrets.values()) >= 1


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgres://app:hunter2@db:5432/x", "postgres://app:[redacted:url-password]@db:5432/x"),
        ("redis://:s3cr3tpw@cache", "redis://:[redacted:url-password]@cache"),
        ("https://u:p@ss-w0rd@host/", "https://u:[redacted:url-password]@host/"),
        ('password = "hunter2!"', 'password = "[redacted:assignment]"'),
        ("'apiKey': 'abc123def456'", "'apiKey': '[redacted:assignment]'"),
        ('{"client_secret": "s3cr3t-value', '{"client_secret": "s3cr3t-value'),
        ("DB_PASSWORD=hunter2abc", "DB_PASSWORD=[redacted:environment]"),
        ("export GITHUB_API_KEY=abcdef123456 && ls", "export GITHUB_API_KEY=[redacted:environment] && ls"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer [redacted:authorization]"),
        ("aws_secret_access_key = " + "wJalrXUt" * 5, "aws_secret_access_key = [redacted:aws-secret-key]"),
        (
            "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----\nb",
            "a\n[redacted:private-key]\nb",
        ),
        ("-----BEGIN PRIVATE KEY-----\\nMIIEvQ\\nabc", "[redacted:private-key]"),
        ("x -----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb (cut off)", "x [redacted:private-key](cut off)"),
    ],
)
def test_a_setting_gives_a_secret_away(text: str, clean: str) -> None:
    assert text_of(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text, nothing in it",
        "password = get_password()",
        "password: string",
        "api_key=os.environ['API_KEY']",
        'password = "${DB_PASSWORD}"',
        'api_key: "your-api-key-here"',
        'password = "********"',
        "API_KEY=$API_KEY",
        "postgres://app:${PASSWORD}@db/x",
        "http://localhost:8080/path@2x.png",
        "git@github.com:team/repo.git",
        "risk-assessment-of-some-very-long-kebab-case-name",
        ".sk-fading-circle-container-element-with-long-name { }",
        "cm_height_of_the_table",
        "AKIA is a prefix",
        "a.eyJ is no token",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "the token budget and the password policy",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "The <system-reminder> tag is never closed here",
        "if a < b and private > c:",
        "<private/> stands alone",
        '{"a": 1,  "b": [true, null]}',
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    found = redact(text)
    assert found.value == text
    assert (found.private_parts, dict(found.secrets)) == (0, {})


@pytest.mark.parametrize(
    ("text", "clean", "parts"),
    [
        ("a <private>b</private> c", "a  c", 1),
        ("a <PRIVATE>b</Private> c", "a  c", 1),
        ('a <private reason="x">b</private > c', "a  c", 1),
        ("<private>a</private>b<private>c</private>", "b", 2),
        ("a <private>b", "a ", 1),
        ("a <private>b <private>c</private> d", "a ", 2),
        ("<private>a<private>b</private>c</private>d", "d", 2),
        ("<private>a<system-reminder>b</private>c</system-reminder>", "c</system-reminder>", 1),
        ("x<system-reminder>y</system-reminder>z", "xz", 1),
        ("<claude-mem-context>y</claude-mem-context>", "", 1),
        ("<system_instruction>a</system_instruction><system-instruction>b</system-instruction>", "", 2),
        ("<persisted-output>\nlong\n</persisted-output>", "", 1),
        ("<pri<private>x</private>vate>hidden</private>shown", "shown", 2),
        ("no opening </private> here", "no opening </private> here", 0),
        ("<private>1 < 2 and 3 > 2</private>ok", "ok", 1),
    ],
)
def test_private_parts_are_cut_out(text: str, clean: str, parts: int) -> None:
    found = redact(text)
    assert (found.value, found.private_parts) == (clean, parts)


def test_keys_lists_and_json_in_strings_are_cleaned() -> None:
    secret = SECRETS["github-token"]
    inner = json.dumps({"stdout": f"<private>me</private>{secret}", "deep": json.dumps([{"token": secret}])})
    found = redact({f"k {secret}": [inner, {"n": 1}], "plain": inner})
    text = json.dumps(found.value)
    assert secret not in text
    assert "me" not in text.replace("github", "")
    assert found.private_parts == 2


def test_an_escaped_private_tag_inside_json_in_a_string_is_found() -> None:
    assert text_of('{"a": "\\u003cprivate\\u003ehidden\\u003c/private\\u003eshown"}') == '{"a": "shown"}'


def test_json_in_a_string_that_is_clean_keeps_its_wording() -> None:
    text = '{"b":1,   "a":[1.50, "x"]}'
    assert text_of(text) == text


def test_a_repeated_key_does_not_hide_its_first_value() -> None:
    assert "hidden" not in text_of('{"a": "<private>hidden</private>", "a": "shown"}')


@pytest.mark.parametrize("name", ["password", "apiKey", "API_KEY", "db.password", "x-api-key", "aws_secret_access_key"])
def test_a_field_named_for_a_secret_loses_its_value(name: str) -> None:
    found = redact({name: "hunter2!"})
    assert found.value == {name: "[redacted:field]"}
    assert found.secrets == {"field": 1}


def test_two_keys_that_become_alike_keep_both_values() -> None:
    one, two = SECRETS["github-token"], SECRETS["github-token"][::-1].replace("_phg", "") + "ghp_" + "z9" * 18
    found = redact({one: 1, two[-40:]: 2})
    assert sorted(cast("dict[str, int]", found.value).values()) == [1, 2]


def test_what_postgres_cannot_hold_is_replaced() -> None:
    assert redact({"a\x00b": "c\ud800d"}).value == {"a\ufffdb": "c\ufffdd"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
PIECES = st.lists(
    st.sampled_from(
        [
            *SECRETS.values(),
            *("<private>", "</private>", "<", ">", "private", "<system-reminder>", "</system-reminder>", "/", " "),
            *('{"', '":', '"', "}", "[", "]", ",", "\\", "\n", "\x00", "\ud800", "eyJ", ".", "-", "_", "a", "Z9", "="),
            *("password", "://", ":", "@", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "API_KEY"),
            *("Authorization: Bearer ", "[redacted:jwt]"),
        ]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(JSON | PIECES | st.dictionaries(PIECES, PIECES | st.lists(PIECES, max_size=3), max_size=3))
def test_it_never_raises_and_what_it_leaves_can_be_stored(value: Json) -> None:
    json.dumps(redact(value).value).encode()
    assert "\\u0000" not in json.dumps(redact(value).value)


@settings(max_examples=400, deadline=None)
@given(PIECES | st.dictionaries(PIECES, PIECES, max_size=3))
def test_cleaning_twice_changes_nothing(value: Json) -> None:
    once = redact(value).value
    assert redact(once).value == once


@settings(max_examples=400, deadline=None)
@given(
    st.text(max_size=40),
    st.sampled_from(sorted(SECRETS.values())),
    st.text(max_size=40),
    st.sampled_from(["plain", "key", "list", "json", "json in json"]),
)
def test_a_planted_secret_never_gets_through(before: str, secret: str, after: str, place: str) -> None:
    text = f"{before} {secret} {after}"
    nested = json.dumps({"out": text})
    places: dict[str, Json] = {
        "plain": text,
        "key": {text: 1},
        "list": [[text]],
        "json": nested,
        "json in json": json.dumps({"more": nested}),
    }
    assert secret not in json.dumps(redact(places[place]).value, ensure_ascii=False)


HOSTILE = {
    "one long run": "a" * 1_000_000,
    "base64 with dots": "eyJ" * 300_000,
    "dotted": ".eyJ" * 250_000,
    "openings": "<private>" * 100_000,
    "reminders never closed": "<system-reminder>" * 60_000 + "</private>" * 60_000,
    "brackets": "<" * 500_000 + ">" * 500_000,
    "nested tags": "<pri" * 100_000 + "<private>x</private>" + "vate>" * 100_000,
    "pem heads": "-----BEGIN PRIVATE KEY-----" * 40_000,
    "schemes": "http://" * 140_000,
    "colons after a scheme": "http://" + "a:" * 400_000,
    "assignments": 'password="' * 100_000,
    "names": "password" * 120_000,
    "env": "A_" * 400_000 + "API_KEY",
    "json in strings": json.dumps([json.dumps(["x" * 1000] * 10)] * 100),
    "open lists": "[" * 1_000_000,
    "prefixes": "ghp_sk-xoxb-AIza" * 60_000,
    "sendgrid": "SG." * 300_000,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_megabyte_does_not_hold_the_process_up(text: str) -> None:
    redact(text)


def test_every_shape_has_a_hint_that_its_matches_contain() -> None:
    for shape in SHAPES:
        assert shape.hints
        assert all(hint == hint.lower() for hint in shape.hints) or not shape.folded
