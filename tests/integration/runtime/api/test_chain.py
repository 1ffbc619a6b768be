import httpx2

from commonplace_runtime.store.pool import Pool
from tests.factories import make_event, make_key, make_memory, make_team


async def test_an_event_becomes_a_job_and_is_read_back(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    answer = await http.post("/v1/events", json=make_event(projectId="default"), headers=key.headers)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    event, job = body["event"], body["generationJob"]
    assert job["status"] == "queued"
    assert job["transport"] == "enqueued"
    read = await http.get(f"/v1/jobs/{job['id']}", headers=key.headers)
    assert read.status_code == 200
    read = await http.get(f"/v1/events/{event['id']}", headers=key.headers)
    assert read.json()["event"] == event
    await make_memory(admin_pool, team, "The retry delay of the uploader is 40 seconds", event_id=event["id"])
    found = await http.post("/v1/search", json={"query": "how long does the uploader wait"}, headers=key.headers)
    assert found.status_code == 200, found.text
    assert found.json()["observations"][0]["sources"] == [{"sourceType": "agent_event", "sourceId": event["id"]}]
