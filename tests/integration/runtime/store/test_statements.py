from importlib.resources import files

import pytest

from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

STATEMENTS = [
    pytest.param(text, id=f"{file.name}:{name}")
    for file in sorted((files("commonplace_runtime.store")).iterdir(), key=lambda file: file.name)
    if file.name.endswith(".sql") and file.name not in ("roles.sql", "schema.sql")
    for name, text in statements(file.name.removesuffix(".sql")).items()
]


@pytest.mark.parametrize("text", STATEMENTS)
async def test_every_named_statement_prepares(admin_pool: Pool, text: str) -> None:
    async with admin_pool.acquire() as connection:
        await connection.prepare(text)
