"""Section 1.5.5: POST /v1/events/batch."""

import pytest

from tests.contract.support import EVENT, FOREIGN_PROJECT, JOB_BRIEF, JOB_WAIT, OTHER_PROJECT, Api, World, has_shape
from tests.factories import make_event


def batch(world: World, size: int = 3) -> list[dict[str, object]]:
    return [make_event(projectId=world.project_id, payload={"n": n}) for n in range(size)]


async def test_1_5_5_the_answer_keeps_the_order_of_the_request(api: Api, world: World) -> None:
    answer = await api.post("/v1/events/batch", world.bound, batch(world, 20), 201)
    assert set(answer) == {"events"}
    assert [item["event"]["payload"]["n"] for item in answer["events"]] == list(range(20))
    for item in answer["events"]:
        assert set(item) == {"event", "generationJob"}
        assert has_shape(item["event"], EVENT)
        assert has_shape(item["generationJob"], JOB_BRIEF)
    assert len({item["generationJob"]["id"] for item in answer["events"]}) == 20


@pytest.mark.parametrize("body", [[], {}, {"events": []}, "[]"])
async def test_1_5_5_the_body_is_an_array_of_1_to_500(api: Api, world: World, body: object) -> None:
    await api.post("/v1/events/batch", world.bound, body, 400)
    assert (await api.post("/v1/events/batch", world.bound, batch(world, 501), 400))["issues"][0]["maximum"] == 500
    assert await api.count(world, "events") == 0


async def test_1_5_5_500_events_are_accepted(api: Api, world: World) -> None:
    answer = await api.post("/v1/events/batch?generate=false", world.bound, batch(world, 500), 201)
    assert len(answer["events"]) == 500


async def test_1_5_5_flags_apply_to_all(api: Api, world: World) -> None:
    answer = await api.post("/v1/events/batch?generate=false", world.bound, batch(world), 201)
    assert [set(item) for item in answer["events"]] == [{"event"}] * 3
    await api.post("/v1/events/batch?generate=no", world.bound, batch(world), 400)


async def test_1_5_5_a_foreign_project_under_a_project_key_is_403_before_any_write(api: Api, world: World) -> None:
    body = [*batch(world), make_event(projectId=world.sibling_id)]
    assert await api.post("/v1/events/batch", world.bound, body, 403) == OTHER_PROJECT
    assert await api.count(world, "events") == await api.count(world, "jobs") == 0


async def test_1_5_5_a_failing_item_rolls_everything_back(api: Api, world: World, other: World) -> None:
    body = [*batch(world), make_event(projectId=other.project_id)]
    assert await api.post("/v1/events/batch", world.key, body, 403) == FOREIGN_PROJECT
    body = [*batch(world), make_event(projectId=world.project_id, serverSessionId="nonsense")]
    await api.post("/v1/events/batch", world.key, body, 403)
    body = [*batch(world), make_event(projectId=world.project_id, eventType="")]
    await api.post("/v1/events/batch", world.key, body, 400)
    assert await api.count(world, "events") == await api.count(world, "jobs") == 0
    assert await api.audits(world) == []


async def test_1_5_5_a_team_key_writes_to_several_projects(api: Api, world: World) -> None:
    body = [make_event(projectId=world.project_id), make_event(projectId=world.sibling_id)]
    answer = await api.post("/v1/events/batch", world.key, body, 201)
    assert [item["event"]["projectId"] for item in answer["events"]] == [world.project_id, world.sibling_id]


async def test_1_5_5_the_same_event_twice_in_a_batch_is_one(api: Api, world: World) -> None:
    answer = await api.post("/v1/events/batch", world.bound, [make_event(projectId=world.project_id)] * 2, 201)
    one, two = answer["events"]
    assert one["event"]["id"] == two["event"]["id"]
    assert one["generationJob"]["id"] == two["generationJob"]["id"]


async def test_1_5_5_wait_shares_one_budget_and_says_who_timed_out(api: Api, world: World) -> None:
    done = (await api.post("/v1/events/batch", world.bound, batch(world, 1), 201))["events"][0]["generationJob"]["id"]
    await api.end_job(done, "completed")
    answer = await api.post("/v1/events/batch?wait=true", world.bound, batch(world, 3), 201)
    assert answer["waitTimedOut"] is True
    first, *others = answer["events"]
    assert (first["generationJob"]["status"], "waitTimedOut" in first) == ("completed", False)
    assert [item["waitTimedOut"] for item in others] == [True, True]
    for item in answer["events"]:
        assert set(item["generationJob"]) == set(JOB_WAIT)


async def test_1_5_5_wait_without_jobs_has_nulls(api: Api, world: World) -> None:
    answer = await api.post("/v1/events/batch?wait=true&generate=false", world.bound, batch(world), 201)
    assert set(answer) == {"events"}
    assert [item["generationJob"] for item in answer["events"]] == [None] * 3


async def test_1_5_5_one_audit_row_for_the_batch(api: Api, world: World) -> None:
    answer = await api.post("/v1/events/batch", world.key, batch(world), 201)
    (row,) = await api.audits(world)
    assert (row["action"], row["resource_type"], row["resource_id"]) == ("event.batch_received", "agent_event", None)
    assert row["details"]["eventCount"] == 3
    assert set(row["details"]["generationJobIds"]) == {item["generationJob"]["id"] for item in answer["events"]}
    assert row["details"]["requestId"]
