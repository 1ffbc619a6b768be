"""The samples are what the API server accepts, to the last field."""

from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.crds.wire import KINDS, Wire

SAMPLES: Final = Path(__file__).resolve().parents[2] / "docs" / "samples"


@pytest.mark.parametrize("file", sorted(SAMPLES.rglob("*.yaml")), ids=lambda file: file.relative_to(SAMPLES).as_posix())
def test_a_sample_is_accepted_without_an_unknown_field(file: Path, wire: Wire) -> None:
    sample = yaml.safe_load(file.read_text())
    (plural,) = [plural for plural, kind in KINDS.items() if kind == sample["kind"]]

    status, answer = wire.try_create(plural, sample)

    assert status == 201, answer.get("message")
