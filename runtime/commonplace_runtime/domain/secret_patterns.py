"""
The surest shapes of secrets. A false alarm costs a memory its wording, so a shape earns its place only by a
prefix or a setting that nothing else has.

Each shape is looked for only where one of its hints stands, which is a fast search; prefixed tokens take all
characters of their alphabet that follow, so no tail of a secret is left over.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One pattern. `secret`: the group that is replaced, 0 for the whole match."""

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    secret: int = 0
    folded: bool = False
    """Whether the hints are looked for in the lower-cased text."""


_NAMES: Final = (
    "password|passwd|passphrase|api[_-]?key|apikey|secret[_-]?key|client[_-]?secret|access[_-]?token|auth[_-]?token"
    "|refresh[_-]?token|private[_-]?key|secret[_-]?access[_-]?key"
)
_FIELD: Final = re.compile(rf"(?:.*[_.-])?(?:{_NAMES})", re.IGNORECASE)
_NAME_HINTS: Final = ("pass", "key", "token", "secret")

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
            r"authorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:bearer|basic|token)\s{1,4}([A-Za-z0-9._~+/=-]{8,})",
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
        hints=("PASS", "KEY", "TOKEN", "SECRET"),
        pattern=re.compile(
            r"(?<![A-Za-z0-9_])[A-Z0-9_]*?(?:PASSWORD|PASSWD|PASSPHRASE|API_KEY|SECRET_KEY|CLIENT_SECRET|ACCESS_TOKEN|AUTH_TOKEN"
            r"|REFRESH_TOKEN|PRIVATE_KEY)=([^\s\"'`;&|<>()\\,]{6,})"
        ),
        secret=1,
    ),
)

_PEM_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY: Final = re.compile(r"[A-Za-z0-9+/=\s\\:,]*")
_PLACEHOLDER: Final = re.compile(
    r"\[redacted:.*|[$<{%].*|[*xX.•_-]+|(?:your|example|changeme|change[_-]me|placeholder|dummy|redacted|none|null"
    r"|undefined|string|true|false|password|secret|token)(?:[_-].*|\b)|(?:process\.env|os\.environ|os\.getenv|env|config|settings|self|this)[.\[(].*",
    re.IGNORECASE | re.DOTALL,
)
_SHORTEST: Final = 6


def is_placeholder(value: str) -> bool:
    """Whether a value stands for a secret instead of being one: a variable, asterisks, `your-key-here`."""
    return len(value) < _SHORTEST or _PLACEHOLDER.fullmatch(value) is not None


def is_secret_field(name: str) -> bool:
    """Whether a field of this name holds a secret whenever it holds text."""
    return len(name) <= 100 and _FIELD.fullmatch(name) is not None


def replace_secrets(text: str, counts: dict[str, int]) -> str:
    """`text` with each secret as `[redacted:<pattern>]`; adds to `counts`."""
    if "PRIVATE KEY" in text:
        text = _replace_pem(text, counts)
    folded: str | None = None
    for shape in SHAPES:
        if shape.folded:
            folded = text.lower() if folded is None else folded
        where = folded if shape.folded and folded is not None else text
        if any(hint in where for hint in shape.hints):
            replaced = shape.pattern.sub(_replacer(shape, counts), text)
            if replaced != text:
                text, folded = replaced, None
    return text


def _replacer(shape: Shape, counts: dict[str, int]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        found = match[shape.secret]
        if shape.secret and is_placeholder(found):
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
