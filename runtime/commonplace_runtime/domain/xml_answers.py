"""
claude-mem's answer grammar, for models that were taught it: observation blocks, a summary block, or skip_summary.

Its rules are followed to the letter, odd ones too: tags are exact, entities stay as they are, text around is ignored.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_FIRST_TYPE: Final = "bugfix"
"""What an observation without a type is: the first type of claude-mem's mode `code`."""
_SKIP = re.compile(r"<skip_summary(\s[^<>]*)?/>")
_REASON = re.compile(r'reason="([^"]*)"')
_OPENING = re.compile(r"<(observation|summary)(?:\s[^<>]*)?>", re.IGNORECASE)
_SUMMARY_FIELDS: Final = ("request", "investigated", "learned", "completed", "next_steps", "notes")


class InvalidXmlAnswer(ValueError):
    """The text has no block of the grammar that says anything."""


@dataclass(frozen=True, kw_only=True)
class XmlObservation:
    """One observation block; what it leaves out is empty."""

    kind: str
    title: str
    subtitle: str
    narrative: str
    facts: Sequence[str]
    concepts: Sequence[str]
    files_read: Sequence[str]
    files_modified: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class XmlAnswer:
    """Either blocks, or a summary by field, or neither: then there is nothing to record."""

    blocks: Sequence[XmlObservation] = ()
    summary: Mapping[str, str] | None = None
    skip_reason: str | None = None


def read_xml_answer(text: str) -> XmlAnswer:
    """What the text says, in time linear in its length. Raises InvalidXmlAnswer."""
    if (skipped := _SKIP.search(text)) is not None:
        reason = _REASON.search(skipped.group(1) or "")
        return XmlAnswer(skip_reason=reason.group(1) if reason else "nothing to record")
    opening = _OPENING.search(text)
    if opening is None:
        raise InvalidXmlAnswer("the answer is neither JSON nor one of the XML blocks")
    if opening.group(1).lower() == "summary":
        return XmlAnswer(summary=_summary(text))
    blocks = [block for inner in _inner(text, "observation") if (block := _block(inner)) is not None]
    if not blocks:
        raise InvalidXmlAnswer("no observation block of the answer says anything")
    return XmlAnswer(blocks=blocks)


def _inner(text: str, tag: str) -> Iterator[str]:
    """What stands between each exact pair of tags. A search, for a lazy pattern is quadratic where ends are missing."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    at = text.find(opening)
    while at >= 0 and (end := text.find(closing, at + len(opening))) >= 0:
        yield text[at + len(opening) : end]
        at = text.find(opening, end + len(closing))


def _field(text: str, tag: str) -> str:
    return next(_inner(text, tag), "").strip()


def _items(text: str, tag: str, item: str) -> list[str]:
    return [found.strip() for found in _inner(next(_inner(text, tag), ""), item) if found.strip()]


def _block(text: str) -> XmlObservation | None:
    kind = _field(text, "type") or _FIRST_TYPE
    concepts = [concept.split(":", 1)[0].strip() for concept in _items(text, "concepts", "concept")]
    block = XmlObservation(
        kind=kind,
        title=_field(text, "title"),
        subtitle=_field(text, "subtitle"),
        narrative=_field(text, "narrative"),
        facts=_items(text, "facts", "fact"),
        concepts=[concept for concept in concepts if concept and concept != kind],
        files_read=_items(text, "files_read", "file"),
        files_modified=_items(text, "files_modified", "file"),
    )
    return block if block.title or block.narrative or block.facts or block.concepts else None


def _summary(text: str) -> Mapping[str, str]:
    inner = next(_inner(text, "summary"), "")
    fields = {name: _field(inner, name) for name in _SUMMARY_FIELDS}
    if not any(fields[name] for name in _SUMMARY_FIELDS if name != "notes"):
        raise InvalidXmlAnswer("the summary block of the answer says nothing")
    return fields
