"""
The surest shapes of secrets. A false alarm costs a memory its wording, so a shape earns its place only by a
prefix or a setting that nothing else has.

Each shape is looked for only where one of its hints stands, which is a fast search; prefixed tokens take all
characters of their alphabet that follow, so no tail of a secret is left over.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from commonplace_runtime.domain.models import Json

_IDENTIFIERS: Final = re.compile(r"[A-Za-z_$]\w*(?:\??\.[A-Za-z_$]\w*)*")
_PATH: Final = re.compile(r"(?:\.{0,2}|~)/.*|file:.*|[@:?].*")
_DIGIT: Final = re.compile(r"\d")
_STRANGE: Final = re.compile(r"[!@#^*?~%$]")
_CURL_BACK: Final = 400


def _always(_match: re.Match[str]) -> bool:
    return True


def _is_no_code(match: re.Match[str]) -> bool:
    """
    Whether what follows a name without quotes is a word that no program would have there.

    Variables, attributes, calls and paths are everyday values of a setting called password; a name with one digit at
    its end is one too, unless it stands in a configuration (`password=hunter2`).
    """
    value = match[match.lastindex or 0]
    after = match.string[match.end() : match.end() + 1]
    if (after and after in "([{") or _PATH.fullmatch(value):
        return False
    digits = len(_DIGIT.findall(value))
    if _IDENTIFIERS.fullmatch(value):
        joined = "." in value or "_" in value
        return digits >= (4 if joined else 2 if ":" in match[0] else 1)
    return digits >= 2 or (digits == 1 and ":" not in match[0]) or bool(_STRANGE.search(value))


def _is_no_directory(match: re.Match[str]) -> bool:
    """PWD is a password for some and the working directory for others."""
    return not (match[0].partition("=")[0].endswith("PWD") and _PATH.fullmatch(match[1]))


def _is_header_value(match: re.Match[str]) -> bool:
    value = match[match.lastindex or 0]
    return len(value) >= 20 or _DIGIT.search(value) is not None


def _is_of_curl(match: re.Match[str]) -> bool:
    before = match.string[max(0, match.start() - _CURL_BACK) : match.start()]
    return "curl" in before.replace("\\\n", " ").rpartition("\n")[2]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """
    One pattern. `secret`: the group that is replaced, 0 for the whole match. `least`: the shortest secret.

    `is_meant` looks at what surrounds a match. It does what a failing pattern could only do in quadratic time.
    """

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    secret: int = 0
    folded: bool = False
    """Whether the hints are looked for in the lower-cased text."""
    least: int = 6
    is_meant: Callable[[re.Match[str]], bool] = _always


_NAMES: Final = (
    "password|passwd|passphrase|api[_-]?key|apikey|secret[_-]?key|client[_-]?secret|access[_-]?token|auth[_-]?token"
    "|refresh[_-]?token|private[_-]?key|secret[_-]?access[_-]?key"
)
_FIELD: Final = re.compile(
    rf"(?:.*[_.-])?(?:{_NAMES})|.*_pwd|(?:http[_-])?(?:proxy[_-]?)?authorization|(?:http[_-])?(?:set[_-]?)?cookie"
    r"|.*(?-i:[a-z0-9](?:Password|Passphrase|ApiKey|APIKey|SecretKey|ClientSecret|AccessToken|AuthToken|RefreshToken"
    r"|PrivateKey))",
    re.IGNORECASE | re.DOTALL,
)
_SCHEME: Final = re.compile(r"(?:bearer|basic|token|apikey|digest|negotiate)\s+", re.IGNORECASE)
_NAME_HINTS: Final = ("pass", "key", "token", "secret")
_ENVIRONMENT: Final = (
    r"(?<![A-Za-z0-9_])[A-Z0-9_]*?(?:PASSWORD|PASSWD|PASSPHRASE|API_KEY|SECRET_KEY|CLIENT_SECRET|ACCESS_TOKEN|AUTH_TOKEN"
    r"|REFRESH_TOKEN|PRIVATE_KEY|[A-Z0-9]_PWD)"
)
_ENVIRONMENT_HINTS: Final = ("PASS", "KEY", "TOKEN", "SECRET", "PWD")

SHAPES: Final = (
    Shape(name="aws-key-id", hints=("AKIA", "ASIA"), pattern=re.compile(r"A[KS]IA[A-Z0-9]{16,}")),
    Shape(
        name="aws-secret-key",
        hints=("secret_access_key", "secretaccesskey"),
        folded=True,
        pattern=re.compile(
            r"secret_?access_?key\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?([A-Za-z0-9/+=]{40,})", re.IGNORECASE
        ),
        secret=1,
    ),
    Shape(
        name="github-token",
        hints=("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        pattern=re.compile(r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}"),
    ),
    Shape(name="gitlab-token", hints=("glpat-",), pattern=re.compile(r"glpat-[A-Za-z0-9_-]{20,}")),
    Shape(
        name="slack-token",
        hints=("xox", "xapp-", "hooks.slack.com/"),
        pattern=re.compile(
            r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9/]{20,}"
        ),
    ),
    Shape(
        name="stripe-key",
        hints=("_live_", "_test_", "whsec_"),
        pattern=re.compile(r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}"),
    ),
    Shape(
        name="model-key",
        hints=("sk-",),
        pattern=re.compile(r"sk-(?:ant|proj|svcacct|admin|or-v1)-[A-Za-z0-9_-]{16,}|sk-[A-Za-z0-9]{32,}"),
    ),
    Shape(name="google-key", hints=("AIza",), pattern=re.compile(r"AIza[A-Za-z0-9_-]{35,}")),
    Shape(
        name="registry-token",
        hints=("npm_", "pypi-AgEI", "hf_", "SG."),
        pattern=re.compile(
            r"npm_[A-Za-z0-9]{36,}|pypi-AgEI[A-Za-z0-9_-]{50,}|hf_[A-Za-z0-9]{30,}|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,}"
        ),
    ),
    Shape(
        name="memory-key",
        hints=("cm_", "cmem_"),
        pattern=re.compile(
            r"cm_[A-Za-z0-9]{16}_[A-Za-z0-9]{43}_[A-Za-z0-9]{6,}|cm(?:em)?_[0-9a-f]{48,}|cmem_[A-Za-z0-9_-]{43,}"
        ),
    ),
    Shape(
        name="jwt",
        hints=(".eyJ",),
        # Only at the start of a run of token characters, or a long run would be read once for each of its letters.
        pattern=re.compile(
            r"(?<![A-Za-z0-9_-])(?>[A-Za-z0-9_-]*?eyJ)[A-Za-z0-9_-]*+\.eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{8,}"
        ),
    ),
    Shape(
        name="url-password",
        hints=("://",),
        pattern=re.compile(r"(?<=://)[^\s/:@\"'<>\\]*+:([^\s/\"'<>\\]+)@"),
        secret=1,
    ),
    Shape(
        name="authorization",
        hints=("uthorization", "UTHORIZATION"),
        pattern=re.compile(
            r"authorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:bearer|basic|token|apikey)\s{1,4}([A-Za-z0-9._~+/=-]{8,})",
            re.IGNORECASE,
        ),
        secret=1,
    ),
    Shape(
        name="assignment",
        hints=_NAME_HINTS,
        folded=True,
        pattern=re.compile(
            rf"(?:{_NAMES})\\?[\"']?\s{{0,4}}[:=]\s{{0,4}}\\?[\"']([^\"'\s\\]{{6,}})\\?[\"']", re.IGNORECASE
        ),
        secret=1,
    ),
    Shape(
        name="environment",
        hints=_ENVIRONMENT_HINTS,
        pattern=re.compile(rf"{_ENVIRONMENT}=([^\s\"'`;&|<>()\\,]{{6,}})"),
        secret=1,
        is_meant=_is_no_directory,
    ),
    Shape(
        name="environment",
        hints=_ENVIRONMENT_HINTS,
        pattern=re.compile(rf"{_ENVIRONMENT}=(?:\"|'|\\\")([^\"'`\\\n]{{6,200}})(?=[\"'\\])"),
        secret=1,
    ),
    Shape(
        name="assignment",
        hints=("passphrase",),
        folded=True,
        pattern=re.compile(
            r"passphrase\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']([^\"'\\\n]{6,200})(?=[\"'\\])", re.IGNORECASE
        ),
        secret=1,
    ),
    Shape(
        name="setting",
        hints=_NAME_HINTS,
        folded=True,
        pattern=re.compile(
            rf"(?:{_NAMES})(?:=|\\?[\"']?:\s{{0,4}}|(?<=--password)\s{{1,4}}|(?<=-key)\s{{1,4}}|(?<=-token)\s{{1,4}})"
            r"([^\s\"'`;&|<>(){}\[\]\\,]{6,})",
            re.IGNORECASE,
        ),
        secret=1,
        is_meant=_is_no_code,
    ),
    Shape(
        name="header",
        hints=("x-api-key", "x-auth-token", "x-access-token"),
        folded=True,
        pattern=re.compile(
            r"x-(?:api-key|auth-token|access-token)\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?([A-Za-z0-9._~+/=-]{8,})",
            re.IGNORECASE,
        ),
        secret=1,
        is_meant=_is_header_value,
    ),
    Shape(
        name="cookie",
        hints=("cookie",),
        folded=True,
        pattern=re.compile(
            r"cookie\\?[\"']?:\s{0,4}\\?[\"']?[A-Za-z0-9_.-]{1,100}=([^\s\"'\\<>;,\[\]][^\r\n\"'\\<>\[\]]{5,})",
            re.IGNORECASE,
        ),
        secret=1,
    ),
    Shape(
        name="curl-password",
        hints=("curl",),
        pattern=re.compile(
            r"(?<=\s)(?:-[A-Za-z]{0,6}[uU]|--(?:proxy-)?user)[ =]{0,2}[\"']?[^\s:\"']{1,100}:([^\s\"'\\]+)"
        ),
        secret=1,
        least=1,
        is_meant=_is_of_curl,
    ),
)

_PEM_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY: Final = re.compile(r"[A-Za-z0-9+/=\s\\:,]*")
_PLACEHOLDER: Final = re.compile(
    r"\[redacted:.*|[$<{%].*|(?:your|enter|insert|replace|example|change)\b.*|[*xX.•_-]+|(?:your|example|changeme|change[_-]me|placeholder|dummy|redacted|none|null"
    r"|undefined|string|true|false|password|secret|token)(?:[_-].*|\b)|(?:process\.env|os\.environ|os\.getenv|env|config|settings|self|this)[.\[(].*",
    re.IGNORECASE | re.DOTALL,
)
_SHORTEST: Final = 6


def _is_placeholder(value: str, least: int = _SHORTEST) -> bool:
    """Whether a value stands for a secret instead of being one: a variable, asterisks, `your-key-here`."""
    return len(value) < least or _PLACEHOLDER.fullmatch(value) is not None


def is_secret_field(name: str) -> bool:
    """Whether a field of this name holds a secret whenever it holds text or a number."""
    return len(name) <= 100 and _is_secret_field(name)


@lru_cache(maxsize=4096)
def _is_secret_field(name: str) -> bool:
    return _FIELD.fullmatch(name) is not None


def is_secret_value(value: Json) -> bool:
    """Whether the value of such a field is the secret itself: no switch, no placeholder, nothing short."""
    if isinstance(value, str):
        return not _is_placeholder(_SCHEME.sub("", value, count=1) if _SCHEME.match(value) else value)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 10 ** (_SHORTEST - 1)


def _shortest(hints: Iterable[str]) -> tuple[str, ...]:
    """Those of `hints` in which none of the others stands: where a longer one is, so is the shorter."""
    known = set(hints)
    return tuple(sorted(hint for hint in known if not any(other in hint for other in known - {hint})))


_FOLDED_HINTS: Final = _shortest(hint for shape in SHAPES if shape.folded for hint in shape.hints)
_PLAIN_HINTS: Final = tuple(
    hint
    for hint in _shortest(["PRIVATE KEY", *(hint for shape in SHAPES if not shape.folded for hint in shape.hints)])
    if not any(folded in hint.lower() for folded in _FOLDED_HINTS)
)


def has_secret_hint(text: str, folded: str) -> bool:
    """Whether any shape is looked for in `text` (`folded`: in lower case), so that `replace_secrets` may change it."""
    return any(hint in text for hint in _PLAIN_HINTS) or any(hint in folded for hint in _FOLDED_HINTS)


def replace_secrets(text: str, counts: dict[str, int]) -> str:
    """`text` with each secret as `[redacted:<pattern>]`; adds to `counts`."""
    if "PRIVATE KEY" in text:
        text = _replace_pem(text, counts)
    folded = text.lower()
    for shape in SHAPES:
        where = folded if shape.folded else text
        for hint in shape.hints:
            if hint in where:
                break
        else:
            continue
        replaced = shape.pattern.sub(_replacer(shape, counts), text)
        if replaced != text:
            text, folded = replaced, replaced.lower()
    return text


def _replacer(shape: Shape, counts: dict[str, int]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        found = match[shape.secret]
        if shape.secret and (_is_placeholder(found, shape.least) or not shape.is_meant(match)):
            return match[0]
        counts[shape.name] = counts.get(shape.name, 0) + 1
        start, end = match.span(shape.secret)
        whole = match[0]
        return f"{whole[: start - match.start()]}[redacted:{shape.name}]{whole[end - match.start() :]}"

    return replace


def _replace_pem(text: str, counts: dict[str, int]) -> str:
    left: list[str] = []
    done = 0
    has_end = True
    for begin in _PEM_BEGIN.finditer(text):
        if begin.start() < done:
            continue
        end = _PEM_END.search(text, begin.end()) if has_end else None
        has_end = end is not None
        stop = end.end() if end is not None else _body_end(text, begin.end())
        counts["private-key"] = counts.get("private-key", 0) + 1
        left += [text[done : begin.start()], "[redacted:private-key]"]
        done = stop
    left.append(text[done:])
    return "".join(left)


def _body_end(text: str, start: int) -> int:
    body = _PEM_BODY.match(text, start)
    return start if body is None else body.end()
