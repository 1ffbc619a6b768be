import json
import re
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.redaction import is_clean, redact, redact_closely, unchanged
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
        ("DB_PASSWORD='my secret pass'", "DB_PASSWORD='[redacted:environment]'"),
        ('DB_PASSWORD="my secret pass" x', 'DB_PASSWORD="[redacted:environment]" x'),
        ("MYSQL_PWD=hunter2222", "MYSQL_PWD=[redacted:environment]"),
        ("password=hunter22", "password=[redacted:setting]"),
        ("password=p@ssword!", "password=[redacted:setting]"),
        ("?api_key=abc123def&x=1", "?api_key=[redacted:setting]&x=1"),
        ("client_secret: 8f14e45fceea167a", "client_secret: [redacted:setting]"),
        ("deploy --password hunter22222 now", "deploy --password [redacted:setting] now"),
        ('{"password": 12345678, x', '{"password": [redacted:setting], x'),
        ('{"passphrase":"correct horse battery" x', '{"passphrase":"[redacted:assignment]" x'),
        ("curl -u user:pw https://x", "curl -u user:[redacted:curl-password] https://x"),
        ("curl -su 'user:pw' https://x", "curl -su 'user:[redacted:curl-password]' https://x"),
        ("curl \\\n  --user u:pw x", "curl \\\n  --user u:[redacted:curl-password] x"),
        ("X-Auth-Token: abcdefgh12345678", "X-Auth-Token: [redacted:setting]"),
        ("X-Api-Key: abcdefgh12345678abcd", "X-Api-Key: [redacted:setting]"),
        ("Cookie: sid=abc123def; a=b", "Cookie: sid=[redacted:cookie]"),
        ("Authorization: ApiKey abcdef123456", "Authorization: ApiKey [redacted:authorization]"),
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
        "password=get_password2()",
        "password=settings.db_password2",
        "password=args.password,",
        "def f(password=None, api_key=''):",
        "password: process.env.PW12",
        "password: z.string().min(8)",
        "password: OAuth2Token",
        "password={password}",
        "password=<your-key>",
        'API_KEY="your key here"',
        "DB_PASSWORD='$(cat file)'",
        "OLD_PWD=/home/ada",
        "docker run -u 1000:1000 image",
        "curl x\nsudo -u app:group y",
        "X-Api-Key: <key>",
        "X-Api-Key: required",
        "Cookie: the browser sends it",
        "private_key=/home/ada/.ssh/id_ed25519",
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


# What stands between the tags, and every spelling in which a tag may wait for somebody to unpack it.
HIDDEN = "hiddenmarker"
SPELLINGS = (
    ("<", ">"),
    ("\\u003c", "\\u003e"),
    ("\\u003C", "\\u003E"),
    ("\\\\u003c", "\\\\u003e"),
    ("\\x3c", "\\x3e"),
    ("&lt;", "&gt;"),
    ("&amp;lt;", "&amp;gt;"),
    ("&#60;", "&#x3e;"),
    ("<", "\\u003e"),
)


@pytest.mark.parametrize(("opening", "closing"), SPELLINGS)
@pytest.mark.parametrize(
    "around", ["{}", '{{"a":"{}"}}', '{{"a":"{}"}} tail', '{{"n":1}}\n{{"a":"{}"}}', '{{"a":"{}" x']
)
def test_an_escaped_tag_hides_what_it_holds_wherever_it_stands(opening: str, closing: str, around: str) -> None:
    text = around.format(f"before {opening}private{closing}{HIDDEN}{opening}/private{closing} after")
    clean = text_of(text)
    assert HIDDEN not in clean
    assert "before " in clean
    assert " after" in clean


LAYERS: dict[str, Callable[[str], str]] = {
    "json": lambda text: json.dumps({"stdout": text}),
    "json list": lambda text: json.dumps([1, text]),
    "json lines": lambda text: f'{{"n": 1}}\n{json.dumps({"out": text})}\n',
    "tail": lambda text: f"{text} tail",
    "tag behind": lambda text: f"{text} <private>x</private>",
    "tag before the end": lambda text: f"{text[:-1]}<private>x</private>{text[-1:]}",
    "reminder behind": lambda text: f"{text}<system-reminder>x</system-reminder>",
    "escaped": lambda text: text.replace("<", "\\u003c").replace(">", "\\u003e"),
    "escaped twice": lambda text: text.replace("<", "\\\\u003c").replace(">", "\\\\u003e"),
    "html": lambda text: text.replace("<", "&lt;").replace(">", "&gt;"),
    "slash": lambda text: text.replace("</", "<\\/"),
    "nul": lambda text: f"\x00{text}",
}


@settings(max_examples=600, deadline=None)
@given(
    spelling=st.sampled_from(SPELLINGS),
    layers=st.lists(st.sampled_from(sorted(LAYERS)), max_size=7),
    closed=st.booleans(),
)
def test_a_private_text_survives_no_nesting(spelling: tuple[str, str], layers: list[str], *, closed: bool) -> None:
    opening, closing = spelling
    text = f"{opening}private{closing}{HIDDEN}" + (f"{opening}/private{closing}" if closed else "")
    for layer in layers:
        text = LAYERS[layer](text)
    clean = redact({"payload": text}).value
    assert HIDDEN not in json.dumps(clean)
    assert redact(clean).value == clean


@pytest.mark.parametrize("inner", ["\\u003cprivate\\u003ehidden\\u003c/private\\u003e", "\\u003cp\\u0072ivate>hidden"])
def test_json_that_appears_only_when_a_tag_is_gone_is_cleaned_inside(inner: str) -> None:
    clean = text_of(f'{{"stdout":"value is {inner} and \\u0000 more" <private>x</private>}}')
    assert "hidden" not in clean
    assert "\\u0000" not in clean
    assert json.loads(clean)["stdout"].startswith("value is ")


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


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"Authorization": "Bearer abcdefghijkl123456"}},
        {"Proxy-Authorization": "Basic dXNlcjpwYXNz"},
        {"cookie": "a=b; session=xyz123"},
        {"Set-Cookie": ["session=xyz123"]},
        {"HTTP_COOKIE": "session=xyz123"},
        {"passphrase": "correct horse battery staple"},
        {"client_secret": "abc def ghi"},
        {"password": 12345678},
        {"password": [["hunter2222"], 12345678]},
        {"dbPassword": "swordfish"},
        {"mysql_pwd": "swordfish"},
    ],
)
def test_no_form_of_value_hides_a_secret_under_its_name(given: Json) -> None:
    clean = json.dumps(redact(given).value)
    assert sum(redact(given).secrets.values()) >= 1
    assert not re.search(r"abcdef|dXNl|xyz|horse|abc def|1234|hunter|fish", clean)


@pytest.mark.parametrize("name", ["password", "authorization", "cookie"])
@pytest.mark.parametrize(
    "value",
    [None, True, False, "", 1234, 0, "${X}", "<your-key>", "Bearer ${TOKEN}", "Bearer <token>", "********", {}, []],
)
def test_a_switch_or_placeholder_under_a_secrets_name_stays(name: str, value: Json) -> None:
    if name != "authorization" and isinstance(value, str) and value.startswith("Bearer"):
        name = "authorization"
    assert redact({name: value}).value == {name: value}


def test_a_working_directory_is_no_secret() -> None:
    assert redact({"pwd": "/home/ada"}).value == {"pwd": "/home/ada"}


def test_keys_that_become_alike_by_the_thousand_cost_no_more_each() -> None:
    found = redact({f"<private>{number}</private>k": number for number in range(3000)}).value
    assert sorted(cast("dict[str, int]", found).values()) == list(range(3000))


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
            *(
                "Authorization: Bearer ",
                "[redacted:jwt]",
                "&lt;",
                "&gt;",
                "\\u003c",
                "\\u003e",
                "\\u003cprivate>",
                "u003c",
            ),
            *(
                "curl -u ",
                "hunter22",
                "Cookie: ",
                "x-api-key: ",
                "DB_PASSWORD='",
                "'",
                "--password ",
                "passphrase",
                "0",
            ),
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
    "escaped openings": "\\u003cprivate\\u003e" * 50_000,
    "backslashes": "\\" * 900_000 + "private<",
    "half entities": "&amp;" * 200_000 + "private<",
    "curl": "curl -u a:" * 100_000,
    "settings": "password=" * 110_000 + "(",
    "cookies": "cookie: a=" * 100_000,
    "passphrases": 'passphrase="' * 80_000,
    "quoted environment": "DB_PASSWORD='" * 80_000,
    "keys alike": json.dumps({f"<private>{number}</private>": 1 for number in range(30_000)}),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_megabyte_does_not_hold_the_process_up(text: str) -> None:
    redact(text)


def test_every_shape_has_a_hint_that_its_matches_contain() -> None:
    for shape in SHAPES:
        assert shape.hints
        assert all(hint == hint.lower() for hint in shape.hints) or not shape.folded


_FRAGMENTS = st.sampled_from(
    [
        *(
            "password",
            "api_key",
            "db_pwd",
            "PWD",
            "Authorization",
            "cookie",
            "x-api-key",
            "token",
            "AKIA",
            "ghp_",
            "sk-ant-",
        ),
        *(
            "<private>",
            "</private>",
            "\\u003cprivate\\u003e",
            "&lt;private&gt;",
            "-----BEGIN PRIVATE KEY-----",
            "eyJ",
            "://u:p@h",
        ),
        *(
            "hunter2hunter2",
            "A" * 40,
            "1234567",
            '"',
            ":",
            "=",
            " ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "\\",
            "\x00",
            "\ud800",
            "\n",
            "curl -u a:bcdefg ",
        ),
        *('{"db_pwd": "hunter22"}', '{"\\u0070assword": "hunter2hunter2"}', '["AUTHORIZATION"]', "plain words", "ü"),
    ]
)
_TEXTS = st.lists(_FRAGMENTS, max_size=5).map("".join)
_VALUES = st.recursive(
    _TEXTS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
@settings(max_examples=1500, deadline=None)
def test_what_a_quick_look_finds_clean_a_close_look_leaves_alone(value: Json) -> None:
    assume(is_clean(value))
    assert redact_closely(value) == unchanged(value)


def test_a_quick_look_knows_everyday_output_as_clean() -> None:
    assert is_clean({"tool_name": "Bash", "tool_response": {"stdout": "3 tests failed in src/a.py", "exit_code": 1}})
