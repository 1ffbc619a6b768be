"""Links between our documents lead somewhere, and the paths that they name exist."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.howto import REPOSITORY

DOCUMENTS: Final = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH: Final = re.compile(r"`((?:benchmarks|charts|crds|deploy|docs|e2e|operator|runtime|tests)/[\w./-]+)`")


of_each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))


def _prose(document: Path) -> str:
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(document: Path) -> set[str]:
    """The names that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", _prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in _LINK.findall(_prose(document)):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@of_each_document
def test_every_path_that_is_named_exists(document: Path) -> None:
    named = set(_PATH.findall(_prose(document)))
    assert sorted(path for path in named if not (REPOSITORY / path).exists()) == []


def test_the_readme_leads_to_every_guide() -> None:
    linked = set(_LINK.findall((REPOSITORY / "README.md").read_text()))
    guides = {f"docs/howto/{file.name}" for file in (REPOSITORY / "docs" / "howto").glob("*.md")}
    assert guides - linked == set()
