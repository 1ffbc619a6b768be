"""By which words a memory is found: as people write them, as code writes them, and as other keyboards have them."""

from collections.abc import Awaitable, Callable

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import make_key, make_team
from tests.integration.runtime.api.memories import write
from tests.integration.runtime.indexes import merge_all

Settle = Callable[[], Awaitable[None]]

OTHERS = ("The gate of pier 4 was painted.", "Wir treffen uns am Montag.", "Запуск в три часа.", "会议室")
CASES = [
    ("Wrap the page in <CheckoutProvider> first", "CheckoutProvider"),
    ("Wrap the page in <CheckoutProvider> first", "checkout provider"),
    ("fetchSailings returns Promise<SailingList>", "SailingList"),
    ("The template has &copy; twice", "copy"),
    ("The APIKey is missing: HTTPServerError", "api key"),
    ("The APIKey is missing: HTTPServerError", "server error"),
    ("OOMKilled again", "killed"),
    ("Die Fährverbindung nach Göteborg", "Goteborg"),
    ("Die Fährverbindung nach Goteborg", "Göteborg"),
    ("Die Fährverbindung nach Go\u0308teborg, as a Mac writes it", "Göteborg"),
    ("Die Straße ist gesperrt", "strasse"),
    ("La contraseña se cambia", "contrasena"),
    ("Øresund tickets", "oresund"),
    ("Łódź ratunkowa", "Lodz"),
    ("İstanbul seferleri", "istanbul"),
    ("サーバーのＡＰＩ", "API"),
    ("Сервер резервных копий находится в Мурманске", "Мурманск"),
    ("Сервер резервных копий находится в Мурманске", "резервная копия"),
    ("Ещё один новый самолёт", "самолет"),
    ("座位图每三十秒刷新", "刷新"),
    ("한국어 문서", "문서"),
]


@pytest.mark.parametrize(("content", "query"), CASES)
async def test_a_memory_is_found_by_its_words(
    http: httpx2.AsyncClient, admin_pool: Pool, content: str, query: str
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    for other in OTHERS:
        await write(http, key, content=other)
    await write(http, key, content=content)
    answer = await http.post("/v1/search", json={"query": query}, headers=key.headers)
    assert [one["content"] for one in answer.json()["observations"]] == [content]


async def test_every_state_of_the_index_reads_the_same_words(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    for content in dict.fromkeys(content for content, _ in CASES):
        await write(http, key, content=content)
    await settle()
    for content, query in CASES:
        answer = await http.post("/v1/search", json={"query": query}, headers=key.headers)
        assert content in [one["content"] for one in answer.json()["observations"]], query


@pytest.mark.parametrize(
    ("tag", "query"),
    [
        ("Göteborg", "goteborg"),
        ("seatMap", "seat map"),
        ("港口", "港"),
        ("Мурманске", "Мурманск"),
        ("src/ports.py", "ports"),
    ],
)
async def test_a_tag_has_parts_like_a_text(http: httpx2.AsyncClient, admin_pool: Pool, tag: str, query: str) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    await write(http, key, content="Short", tags=[tag])
    answer = await http.post("/v1/search", json={"query": query}, headers=key.headers)
    assert [one["content"] for one in answer.json()["observations"]] == ["Short"]


async def test_letters_that_grow_to_many_can_be_written(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    """One of these is 18 letters in plain ones; a tsvector holds 1 MB."""
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    await write(http, key, content=" ".join(f"{chr(0x1400 + n % 600)}ﷺ{chr(0x1400 + n // 600)}" for n in range(15_000)))


async def test_a_pasted_trace_is_found_by_its_last_line(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    """It has more words than count; those that no memory has are none of them."""
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    causes = ["deadlock", "quota", "overflow", "corruption", "timeout", "panic"]
    for content in ["In the file is a line: return", *causes]:
        await write(http, key, content=content)
    trace = "\n".join(
        f"  File lib{n}/module{n}.py, line {n}, in handle{n}\n    return call{n}(x{n})" for n in range(24)
    )
    for _ in range(2):
        answer = await http.post("/v1/search", json={"query": f"{trace}\n{' '.join(causes)}"}, headers=key.headers)
        assert {one["content"] for one in answer.json()["observations"]} >= set(causes)
        await merge_all(admin_pool, runtime_pool)
