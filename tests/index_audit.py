"""Whether the search index says of each memory what the memory says, and of nothing else."""

from collections import defaultdict
from typing import Any

from commonplace_runtime.domain.postings import SINGLES, unpack_postings, unpack_terms
from commonplace_runtime.store.pool import Pool

_LIVING = """
SELECT m.id, m.team_id, m.session_id, m.project_id, commonplace.search_owner(m.visibility, m.owner_actor) AS owner,
    commonplace.search_terms(commonplace.search_lexemes(m.lexemes, m.owner_actor, m.metadata)) AS terms,
    (SELECT count(*) FROM commonplace.search_tail t WHERE t.memory_id = m.id AND t.project_id = m.project_id
        AND t.owner_actor = commonplace.search_owner(m.visibility, m.owner_actor) AND t.number = m.number
        AND t.session_id IS NOT DISTINCT FROM m.session_id
        AND t.terms = commonplace.search_terms(commonplace.search_lexemes(m.lexemes, m.owner_actor, m.metadata))
    ) AS waiting,
    d.index_no, d.docno, i.owner_actor AS index_owner, i.project_id AS index_project
FROM commonplace.memories m LEFT JOIN commonplace.search_documents d ON d.memory_id = m.id
LEFT JOIN commonplace.search_indexes i ON i.number = d.index_no
"""


async def audit_index(admin_pool: Pool) -> dict[str, int]:
    """
    How many memories are `merged` and wait in the `tail`, after these were compared with the index word by word.

    Every memory is in exactly one of both, or in none as long as its project is built anew. Every posting is of a word
    of a living document, or of one that is to be purged. The neighbours of a document are of its session.
    """
    rows = await admin_pool.fetch(_LIVING)
    documents = {(row["index_no"], row["docno"]): row for row in rows if row["docno"] is not None}
    pending = await admin_pool.fetch("SELECT project_id FROM commonplace.search_work WHERE rebuild_from IS NOT NULL")
    rebuilt = {row["project_id"] for row in pending}
    missing = 0
    for row in rows:
        times = row["waiting"] + (row["docno"] is not None)
        missing += times == 0
        assert times == 1 or (times == 0 and row["project_id"] in rebuilt), f"{row['id']} is there {times} times"
        if row["docno"] is not None:
            assert (row["index_owner"], row["index_project"]) == (row["owner"], row["project_id"])
    sessions = defaultdict(set)
    for (index_no, docno), row in documents.items():
        assert (row["session_id"] is None) == (docno >= SINGLES)
        if docno < SINGLES:
            sessions[index_no, docno // 32].add(row["session_id"])
    assert all(len(of_block) == 1 for of_block in sessions.values())
    counts = {
        "merged": len(documents),
        "tail": await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_tail"),
    }
    assert sum(counts.values()) + missing == len(rows)
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_documents") == len(documents)

    dead = {
        (row["index_no"], row["docno"]) for row in await admin_pool.fetch("SELECT * FROM commonplace.search_purges")
    }
    assert not dead & documents.keys()
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    segments = {
        tuple(row) for row in await admin_pool.fetch("SELECT index_no, segment FROM commonplace.search_segments")
    }
    for row in await admin_pool.fetch("SELECT index_no, term, segment, data FROM commonplace.search_postings"):
        assert (row["index_no"], row["segment"]) in segments
        assert row["data"], "an empty list"
        for docno, impact in zip(*unpack_postings([row["data"]]), strict=True):
            found[row["index_no"], int(docno)].append((row["term"], int(impact)))
    for where, row in documents.items():
        wanted: list[Any] = [(int(term), int(impact)) for term, impact in zip(*unpack_terms(row["terms"]), strict=True)]
        assert sorted(found.pop(where, [])) == sorted(wanted), f"other words of {row['id']}"
    assert found.keys() <= dead, "postings of documents that nobody will purge"
    held = await admin_pool.fetch(
        "SELECT index_no, sum(documents) AS documents FROM commonplace.search_segments GROUP BY index_no"
    )
    for row in held:
        assert row["documents"] == sum(where[0] == row["index_no"] for where in documents.keys() | dead)
    return counts
