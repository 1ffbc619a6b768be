"""Finds in plain text what is worth keeping: decisions, rules, facts, open work, and the words to find them by."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from commonplace_runtime.domain.observations import clip, unique

MAX_TEXT: Final = 20_000

_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[^a-z])|(?<=[。！？])")
_LEADING_MARK = re.compile(r"(?:[-*•>]+|#{1,6}|\d{1,3}[.)]) ")
_LINE_ENDS_SENTENCE = re.compile(r"[.!?:;。！？]$|^#|^\|")
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_IDENTIFIER = re.compile(
    r"`[^`\n]{2,80}`"
    r"|(?<![\w/.-])[~.]{0,2}/?(?:[\w.-]{1,80}/){1,20}[\w.-]{0,80}\w"
    r"|\b\w+(?:\.\w+)+\b"
    r"|\b[A-Za-z]\w*_\w+\b"
    r"|\b[a-z]+[A-Z]\w*\b|\b[A-Z][a-z]+[A-Z]\w*\b"
    r"|(?<!\w)--?[a-z][\w-]+"
    r"|\b[A-Z]{2}[A-Z0-9-]*\b"
)
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NUMBER = re.compile(r"\d")
_STATES = re.compile(
    r"\b(?:is|are|was|were|has|have|uses?|used|runs?|lives?|listens?|needs?|requires?|expects?|returns?|means|must|"
    r"stores?|sends?|reads?|writes?|depends?|defaults?|contains?|supports?|expires?|holds?|keeps?|takes?|costs?|"
    r"ist|sind|hat|läuft|muss|braucht|verwendet)\b",
    re.IGNORECASE,
)

_CUES: Final[Sequence[tuple[str, re.Pattern[str]]]] = (
    (
        "decision",
        re.compile(
            r"\b(?:we|i|team) (?:have |has |'ve )?(?:decided|agreed|chose|settled|picked|opted)\b"
            r"|\bdecision\b|\bdecided (?:to|on|that|against)\b|\blet'?s (?:use|go with|keep|stick|switch|drop)\b"
            r"|\b(?:went|going|go) with\b|\binstead of\b|\brather than\b"
            r"|\bwe(?:'ll| will| are going to) (?:use|keep|drop|switch|move|store|ship)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "convention",
        re.compile(
            r"\b(?:always|never|must|do not ever|don'?t ever|convention|rule of thumb|from now on|make sure|prefer|"
            r"please (?:use|keep|avoid))\b",
            re.IGNORECASE,
        ),
    ),
    (
        "todo",
        re.compile(
            r"\b(?:TODO|FIXME|XXX)\b|\b(?:to do|still (?:need|have|missing|open)|remaining|follow[- ]up|next steps?)\b"
        ),
    ),
    (
        "bugfix",
        re.compile(
            r"\b(?:fixed|fixes|the fix|root cause|caused by|was failing|bug was|turned out|resolved|"
            r"the (?:problem|issue|bug) (?:is|was))\b",
            re.IGNORECASE,
        ),
    ),
    (
        "note",
        re.compile(
            r"\b(?:note that|note:|remember|keep in mind|important|because|the reason|so that|beware|careful|gotcha)\b",
            re.IGNORECASE,
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A sentence and why it stands out: decision, convention, todo, bugfix, note or fact."""

    cue: str
    text: str


def sentences(text: str) -> Sequence[str]:
    """The sentences and list items of `text`, without code blocks and list marks."""
    blocks: list[str] = []
    goes_on = False
    for line in _FENCE.sub("\n\n", text[:MAX_TEXT]).splitlines():
        words = " ".join(line.replace("**", "").split())
        mark = _LEADING_MARK.match(words)
        if goes_on and words and not mark:
            # A line that somebody wrapped.
            blocks[-1] += f" {words}"
        elif words:
            blocks.append(words[mark.end() :] if mark else words)
        goes_on = bool(words) and not _LINE_ENDS_SENTENCE.search(words)
    parts = (part.strip() for block in blocks for part in _SENTENCE_END.split(block))
    return [part for part in parts if len(part) > 2]


def identifiers(text: str, limit: int) -> Sequence[str]:
    """Names as programmers write them: paths, flags, snake_case, camelCase, ACRONYMS, `quoted` ones."""
    return unique([match.group().strip("`") for match in _IDENTIFIER.finditer(text[:MAX_TEXT])], limit)


def keywords(text: str, limit: int = 16) -> Sequence[str]:
    """Identifiers, and the words inside the joined ones, so that a question in plain words finds them."""
    names = identifiers(text, limit)
    humps = [hump.lower() for name in names for hump in _HUMPS.findall(name) if len(hump) > 2 and len(hump) < len(name)]
    return unique([*names[: limit * 2 // 3], *humps], limit)


def is_fact(sentence: str) -> bool:
    """Whether a sentence states something checkable: it has a verb of being and names a thing or a number."""
    return bool(
        len(sentence.split()) >= 4
        and not sentence.endswith("?")
        and _STATES.search(sentence)
        and (_NUMBER.search(sentence) or _IDENTIFIER.search(sentence))
    )


def findings(text: str, limit: int = 8) -> Sequence[Finding]:
    """The sentences that stand out, the weightiest cue first, in order of the text within a cue."""
    found: list[Finding] = []
    for sentence in sentences(text):
        cue = next((name for name, pattern in _CUES if pattern.search(sentence)), "fact" if is_fact(sentence) else None)
        if cue is not None:
            found.append(Finding(cue=cue, text=clip(sentence, 300)))
    rank = {name: place for place, name in enumerate([*(name for name, _ in _CUES), "fact"])}
    return sorted(found, key=lambda finding: rank[finding.cue])[:limit]
