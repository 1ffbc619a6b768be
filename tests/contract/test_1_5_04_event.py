"""Section 1.5.4: POST /v1/events."""

import asyncio
from typing import Any

import pytest

from tests.contract.support import EVENT, FOREIGN_PROJECT, JOB_BRIEF, JOB_WAIT, Api, World, has_shape
from tests.factories import make_event


async def test_1_5_4_an_event_without_wait_has_its_brief_job(api: Api, world: World) -> None:
    answer = await api.event(world.bound, world.project_id)
    assert set(answer) == {"event", "generationJob"}
    assert has_shape(answer["event"], EVENT)
    assert has_shape(answer["generationJob"], JOB_BRIEF)
    assert answer["generationJob"]["status"] == "queued"
    assert answer["generationJob"]["sourceId"] == answer["event"]["id"]


async def test_1_5_4_generate_false_omits_the_job(api: Api, world: World) -> None:
    answer = await api.event(world.bound, world.project_id, "?generate=false")
    assert set(answer) == {"event"}
    assert await api.count(world, "jobs") == 0


async def test_1_5_4_generate_false_with_wait_has_a_job_of_null(api: Api, world: World) -> None:
    answer = await api.event(world.bound, world.project_id, "?generate=false&wait=true")
    assert set(answer) == {"event", "generationJob"}
    assert answer["generationJob"] is None


async def test_1_5_4_flags_are_true_and_false_by_default(api: Api, world: World) -> None:
    for query in ("?generate=true", "?wait=false", "?generate=true&wait=false"):
        assert set((await api.event(world.bound, world.project_id, query))["generationJob"]) == set(JOB_BRIEF)


@pytest.mark.parametrize(
    "query", ["generate=1", "generate=yes", "generate=", "generate=True", "wait=0", "wait=true&wait=true"]
)
async def test_1_5_4_another_flag_or_a_repeated_one_is_400(api: Api, world: World, query: str) -> None:
    await api.post(f"/v1/events?{query}", world.bound, make_event(projectId=world.project_id), 400)
    assert await api.count(world, "events") == 0


@pytest.mark.parametrize("project", [5, "", [], True])
async def test_1_5_4_project_id_is_a_string_of_at_least_one_character(api: Api, world: World, project: object) -> None:
    answer = await api.post("/v1/events", world.bound, make_event(projectId=project), 400)
    assert answer["issues"][0]["path"] == ["projectId"]


async def test_1_5_4_project_id_is_required_where_none_is_evident(api: Api, world: World) -> None:
    """Section 11.10: a bound key, or a team with one project, need not say it; another must."""
    answer = await api.post("/v1/events", world.key, make_event(), 400)
    assert answer["issues"][0]["path"] == ["projectId"]
    stored = await api.post("/v1/events", world.bound, make_event(), 201)
    assert stored["event"]["projectId"] == world.project_id


async def test_1_5_4_project_id_may_be_a_name(api: Api, world: World) -> None:
    """Section 11.10."""
    assert (await api.event(world.key, "sibling"))["event"]["projectId"] == world.sibling_id


@pytest.mark.parametrize("source", ["hook", "worker", "provider", "server", "api"])
async def test_1_5_4_source_type_becomes_the_source_adapter(api: Api, world: World, source: str) -> None:
    event = (await api.event(world.bound, world.project_id, sourceType=source))["event"]
    assert event["sourceAdapter"] == source
    assert "sourceType" not in event


@pytest.mark.parametrize("source", ["me", "", 5, "HOOK", ["hook"]])
async def test_1_5_4_source_type_is_one_of_five(api: Api, world: World, source: object) -> None:
    body = make_event(projectId=world.project_id, sourceType=source)
    answer = await api.post("/v1/events", world.bound, body, 400)
    assert (answer["issues"][0]["path"], answer["issues"][0]["code"]) == (["sourceType"], "invalid_value")


async def test_1_5_4_source_type_defaults_to_api_and_the_time_to_now(api: Api, world: World) -> None:
    """Section 11.4: both are required by the peer."""
    body = {"projectId": world.project_id, "eventType": "note"}
    event = (await api.post("/v1/events", world.bound, body, 201))["event"]
    assert event["sourceAdapter"] == "api"
    assert abs(event["occurredAtEpoch"] - event["receivedAtEpoch"]) < 60_000


@pytest.mark.parametrize("event_type", ["", 5, None, {}])
async def test_1_5_4_event_type_is_required(api: Api, world: World, event_type: object) -> None:
    body = make_event(projectId=world.project_id, eventType=event_type)
    answer = await api.post("/v1/events", world.bound, body, 400)
    assert answer["issues"][0]["path"] == ["eventType"]


async def test_1_5_4_event_type_is_free_text(api: Api, world: World) -> None:
    event_type = "Weird type / ünïcode 数据 " + "x" * 500
    assert (await api.event(world.bound, world.project_id, eventType=event_type))["event"]["eventType"] == event_type


@pytest.mark.parametrize("moment", [0, 1, 1_790_000_000_000.0, 253_402_300_799_999])
async def test_1_5_4_occurred_at_is_any_whole_number_from_0(api: Api, world: World, moment: float) -> None:
    event = (await api.event(world.bound, world.project_id, occurredAtEpoch=moment))["event"]
    assert event["occurredAtEpoch"] == moment


@pytest.mark.parametrize("moment", [-1, 0.5, "0", True, [], 2**53])
async def test_1_5_4_occurred_at_is_nothing_else(api: Api, world: World, moment: object) -> None:
    body = make_event(projectId=world.project_id, occurredAtEpoch=moment)
    answer = await api.post("/v1/events", world.bound, body, 400)
    assert answer["issues"][0]["path"] == ["occurredAtEpoch"]


@pytest.mark.parametrize("field", ["serverSessionId", "contentSessionId", "memorySessionId", "platformSource"])
async def test_1_5_4_optional_fields_are_null_or_a_string_of_at_least_one_character(
    api: Api, world: World, field: str
) -> None:
    await api.event(world.bound, world.project_id, **{field: None})
    faulty: tuple[object, ...] = ("", 5, [], False)
    for wrong in faulty:
        body = make_event(projectId=world.project_id, **{field: wrong})
        answer = await api.post("/v1/events", world.bound, body, 400)
        assert answer["issues"][0]["path"] == [field]


@pytest.mark.parametrize("payload", ["text", 0, 1.5, True, False, [], [1, [2]], {"a": {"b": None}}, "", 2**53])
async def test_1_5_4_payload_is_any_json(api: Api, world: World, payload: object) -> None:
    answer = await api.event(world.bound, world.project_id, payload=payload)
    assert answer["event"]["payload"] == payload
    assert type(answer["event"]["payload"]) is type(payload)


async def test_1_5_4_payload_missing_or_null_becomes_an_empty_object(api: Api, world: World) -> None:
    assert (await api.event(world.bound, world.project_id, payload=None))["event"]["payload"] == {}
    body = {name: value for name, value in make_event(projectId=world.project_id).items() if name != "payload"}
    body["occurredAtEpoch"] = 77
    assert (await api.post("/v1/events", world.bound, body, 201))["event"]["payload"] == {}


async def test_1_5_4_source_event_id_and_metadata_are_honoured(api: Api, world: World) -> None:
    """Section 11.1: the peer strips both."""
    first = await api.event(world.bound, world.project_id, sourceEventId="s-1", metadata={"a": 1})
    assert (first["event"]["sourceEventId"], first["event"]["metadata"]) == ("s-1", {"a": 1})
    again = await api.event(world.bound, world.project_id, sourceEventId="s-1", occurredAtEpoch=5)
    assert again["event"]["id"] == first["event"]["id"]


async def test_1_5_4_linkage_takes_the_newest_session_of_that_content_id(api: Api, world: World) -> None:
    older = await api.session(world.bound, world.project_id, externalSessionId="a", contentSessionId="c")
    newer = await api.session(world.bound, world.project_id, externalSessionId="b", contentSessionId="c")
    await api.session(world.sibling_key, world.sibling_id, contentSessionId="c")
    event = {key: value for key, value in make_event(contentSessionId="c").items() if key != "platformSource"}
    answer = await api.post("/v1/events", world.bound, {**event, "projectId": world.project_id}, 201)
    assert answer["event"]["serverSessionId"] == newer["id"] != older["id"]


async def test_1_5_4_linkage_is_restricted_to_the_platform_that_the_body_names(api: Api, world: World) -> None:
    sessions = {
        platform: (await api.session(world.bound, world.project_id, contentSessionId="c", platformSource=platform))[
            "id"
        ]
        for platform in ("claude", "cursor", None)
    }

    async def linked(**fields: Any) -> str | None:
        answer = await api.event(world.bound, world.project_id, contentSessionId="c", **fields)
        found: str | None = answer["event"]["serverSessionId"]
        return found

    assert await linked(platformSource="Claude Code") == sessions["claude"]
    assert await linked(platformSource="cursor") == sessions["cursor"]
    assert await linked(platformSource="codex") is None
    assert await linked(platformSource=None) == sessions[None], "explicit null: only sessions without a platform"


async def test_1_5_4_linkage_without_a_match_is_no_error(api: Api, world: World, other: World) -> None:
    await api.session(other.bound, other.project_id, contentSessionId="c", platformSource="claude")
    answer = await api.event(world.bound, world.project_id, contentSessionId="c", platformSource="claude")
    assert answer["event"]["serverSessionId"] is None


async def test_1_5_4_a_named_server_session_wins(api: Api, world: World) -> None:
    named = (await api.session(world.bound, world.project_id))["id"]
    await api.session(world.bound, world.project_id, contentSessionId="c", platformSource="claude")
    answer = await api.event(
        world.bound, world.project_id, serverSessionId=named, contentSessionId="c", platformSource="claude"
    )
    assert answer["event"]["serverSessionId"] == named


async def test_1_5_4_checks_stand_in_order_query_body_project(api: Api, world: World, other: World) -> None:
    foreign = make_event(projectId=other.project_id)
    query = await api.post("/v1/events?wait=x", world.key, {**foreign, "eventType": 5}, 400)
    assert query["issues"][0]["path"] == ["wait"]
    body = await api.post("/v1/events", world.key, {**foreign, "eventType": 5}, 400)
    assert body["issues"][0]["path"] == ["eventType"]
    assert await api.post("/v1/events", world.key, foreign, 403) == FOREIGN_PROJECT


async def test_1_5_4_event_job_and_audit_are_written_together(api: Api, world: World) -> None:
    answer = await api.event(world.bound, world.project_id, sourceEventId="s-1")
    event, job = answer["event"], answer["generationJob"]
    (row,) = await api.audits(world)
    assert (row["action"], row["resource_type"], row["resource_id"]) == ("event.received", "agent_event", event["id"])
    assert {
        "sourceAdapter": "hook",
        "sourceEventId": "s-1",
        "eventType": "tool_use",
        "serverSessionId": None,
        "generationJobId": job["id"],
    }.items() <= row["details"].items()
    assert (str(row["key_id"]), row["actor"], str(row["project_id"])) == (
        world.bound.id,
        "agent:tester",
        world.project_id,
    )


async def test_1_5_4_wait_answers_as_soon_as_the_job_has_ended(api: Api, world: World) -> None:
    for status in ("completed", "failed", "cancelled"):
        waiting = asyncio.create_task(api.event(world.bound, world.project_id, "?wait=true"))
        async with asyncio.timeout(5):
            while not (jobs := (await api.get("/v1/jobs?status=queued", world.bound))["jobs"]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await api.end_job(jobs[0]["id"], status)
        answer = await waiting
        assert set(answer) == {"event", "generationJob"}
        assert set(answer["generationJob"]) == set(JOB_WAIT)
        assert answer["generationJob"]["status"] == status


async def test_1_5_4_wait_in_vain_says_so_and_is_201(api: Api, world: World) -> None:
    answer = await api.event(world.bound, world.project_id, "?wait=true")
    assert answer["waitTimedOut"] is True
    assert answer["generationJob"]["status"] == "queued"


async def test_1_5_4_a_duplicate_is_the_same_event_and_job(api: Api, world: World) -> None:
    body = make_event(projectId=world.project_id, metadata={"a": 1})
    first = await api.post("/v1/events", world.bound, body, 201)
    again = await api.post("/v1/events", world.bound, {**body, "metadata": {"b": 2}}, 201)
    assert again["event"]["id"] == first["event"]["id"]
    assert again["generationJob"]["id"] == first["generationJob"]["id"]
    assert again["event"]["metadata"] == {"a": 1, "b": 2}
    assert again["event"]["payload"] == first["event"]["payload"]
    assert await api.count(world, "events") == await api.count(world, "jobs") == 1


async def test_1_5_4_a_duplicate_has_the_jobs_current_status(api: Api, world: World) -> None:
    body = make_event(projectId=world.project_id)
    first = await api.post("/v1/events", world.bound, body, 201)
    await api.end_job(first["generationJob"]["id"], "completed")
    assert (await api.post("/v1/events", world.bound, body, 201))["generationJob"]["status"] == "completed"
    awaited = await api.post("/v1/events?wait=true", world.bound, body, 201)
    assert (awaited["generationJob"]["status"], "waitTimedOut" in awaited) == ("completed", False)


async def test_1_5_4_a_duplicate_keeps_its_session_link(api: Api, world: World) -> None:
    body = make_event(projectId=world.project_id, contentSessionId="c", platformSource="claude")
    first = await api.post("/v1/events", world.bound, body, 201)
    await api.session(world.bound, world.project_id, contentSessionId="c", platformSource="claude")
    again = await api.post("/v1/events", world.bound, body, 201)
    assert again["event"]["serverSessionId"] is first["event"]["serverSessionId"] is None


async def test_1_5_4_events_come_before_and_after_their_sessions_end(api: Api, world: World) -> None:
    """Section 7.9.4."""
    fields = {"contentSessionId": "c", "platformSource": "claude"}
    await api.event(world.bound, world.project_id, **fields)
    session = (await api.session(world.bound, world.project_id, externalSessionId="c", **fields))["id"]
    await api.post(f"/v1/sessions/{session}/end", world.bound, {})
    late = await api.event(world.bound, world.project_id, serverSessionId=session, **fields)
    assert late["event"]["serverSessionId"] == session
