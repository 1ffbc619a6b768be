"""What is applied for a managed MemoryRuntime, word by word: `tests/golden/<name>.yaml`, reviewed as a diff."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.operator.managed import EXAMPLES, Example, children, clear

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
UPDATE = "UPDATE_GOLDEN"


def rendered(example: Example) -> str:
    """One YAML stream; Secrets are shown in clear, for their content is to be reviewed too."""
    shown = [
        {**{k: v for k, v in manifest.items() if k != "data"}, "stringData": clear(manifest)}
        if manifest["kind"] == "Secret"
        else manifest
        for manifest in children(example)
    ]
    head = (
        f"# Made by {UPDATE}=1 pytest tests/unit/operator/test_golden.py; not to be edited. In the order of applying.\n"
    )
    return head + yaml.dump_all(shown, Dumper=_WithoutAliases, sort_keys=False, explicit_start=True, width=120)


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_children_are_those_that_were_reviewed(name: str) -> None:
    file = GOLDEN / f"{name}.yaml"
    text = rendered(EXAMPLES[name])
    if os.environ.get(UPDATE):
        file.write_text(text)
    known = file.read_text() if file.exists() else ""
    assert text == known, f"{file.name} differs: run {UPDATE}=1 pytest {Path(__file__).name} and review the diff"


def test_every_golden_file_is_of_an_example() -> None:
    assert {file.stem for file in GOLDEN.glob("*.yaml")} == set(EXAMPLES)
