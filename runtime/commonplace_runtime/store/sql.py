"""Reads the named statements of a `.sql` file beside this module."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- ([a-z][a-z0-9_]*) --$", re.MULTILINE)


@cache
def statements(file: str) -> Mapping[str, str]:
    """
    The blocks of `store/<file>.sql` by name. A block runs from its line `-- name --` to the next.

    Raises KeyError on use of a name that is not there, ValueError when a name stands twice.
    """
    text = (files("commonplace_runtime.store") / f"{file}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    found: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in found:
            raise ValueError(f"{file}.sql names {name} twice")
        found[name] = body.strip().rstrip(";")
    return MappingProxyType(found)
