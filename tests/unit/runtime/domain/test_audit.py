from typing import Any, cast

import pytest

from commonplace_runtime.domain.audit import AuditRow, actions_named, shown

ID = "01890000-0000-7000-8000-000000000001"
ROW: dict[str, Any] = {
    "id": ID,
    "teamId": ID,
    "projectId": None,
    "keyId": None,
    "actor": "human:ada",
    "requestId": "r",
    "action": "observation.read",
    "targetType": "observation",
    "targetId": None,
    "metadata": {},
    "createdAtEpoch": 1,
}


def row(**changes: Any) -> AuditRow:
    return cast(AuditRow, {**ROW, **changes})


def others(**details: Any) -> dict[str, Any]:
    return shown(row(metadata=details), reader="human:eve", sees_content=False)


def test_of_others_only_what_can_be_no_content_is_shown() -> None:
    told = others(
        requestId="r",
        mode="search",
        limit=3,
        resultCount=0,
        observationIds=[ID, ID],
        query="layoffs",
        counts={"jobs": 2},
    )
    assert told["metadata"] == {
        "requestId": "r",
        "mode": "search",
        "limit": 3,
        "resultCount": 0,
        "observationIds": [ID, ID],
        "counts": {"jobs": 2},
    }
    assert told["withheld"] == ["query"]


@pytest.mark.parametrize(
    "value", ["text", ["text"], [ID, "text"], {"a": "text"}, {"a": [{"b": "text"}]}, f"{ID} and text", [[["text"]]]]
)
def test_text_that_nobody_has_vouched_for_is_withheld_wherever_it_stands(value: Any) -> None:
    told = others(anything=value)
    assert (told["metadata"], told["withheld"]) == ({}, ["anything"])


def test_ones_own_rows_and_those_of_an_auditor_are_whole() -> None:
    given = row(metadata={"query": "x"})
    for reader, sees_content in (("human:ada", False), ("human:eve", True)):
        told = shown(given, reader=reader, sees_content=sees_content)
        assert told["metadata"] == {"query": "x"}
        assert "withheld" not in told


@pytest.mark.parametrize(
    ("actor", "kind", "name"),
    [
        ("human:ada", "human", "ada"),
        ("key:ns/name", "key", "ns/name"),
        ("agent:a:b", "agent", "a:b"),
        ("somebody", "unknown", "somebody"),
        (None, "system", None),
    ],
)
def test_an_actor_is_told_in_two_parts(actor: str | None, kind: str, name: str | None) -> None:
    told = shown(row(actor=actor), reader="human:ada", sees_content=True)
    assert (told["actor"], told["actorType"], told["actorId"]) == (actor, kind, name)


def test_both_names_of_an_action_find_it_and_are_told() -> None:
    assert actions_named("generation.completed") == (["generation_job.completed"], None)
    assert actions_named("generation_job.completed") == (["generation_job.completed"], None)
    assert actions_named("generation.*") == (["generation_job.completed"], "generation.")
    assert actions_named("api_key.*") == ([], "api_key.")
    assert shown(row(action="generation_job.completed"), reader="", sees_content=True)["aliases"] == [
        "generation.completed"
    ]
