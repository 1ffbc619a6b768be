"""Section 1.3: each form of a validation issue."""

from typing import Any

import pytest

from tests.contract.support import Api, World
from tests.factories import make_event


async def issues_of(api: Api, world: World, path: str, body: Any) -> list[dict[str, Any]]:
    answer = await api.post(path, world.key, body, 400)
    assert (answer["error"], set(answer)) == ("ValidationError", {"error", "issues"})
    issues: list[dict[str, Any]] = answer["issues"]
    return issues


@pytest.mark.parametrize(
    ("given", "received"),
    [(5, "number"), (True, "boolean"), ([], "array"), ({}, "object"), (1.5, "number")],
)
async def test_1_3_wrong_type(api: Api, world: World, given: object, received: str) -> None:
    (issue,) = await issues_of(api, world, "/v1/search", {"projectId": world.project_id, "query": given})
    assert issue == {
        "code": "invalid_type",
        "expected": "string",
        "path": ["query"],
        "message": f"Invalid input: expected string, received {received}",
    }


async def test_1_3_missing_is_undefined_and_null_is_null(api: Api, world: World) -> None:
    (missing,) = await issues_of(api, world, "/v1/search", {"projectId": world.project_id})
    assert missing["message"] == "Invalid input: expected string, received undefined"
    (null,) = await issues_of(api, world, "/v1/search", {"projectId": world.project_id, "query": None})
    assert null["message"] == "Invalid input: expected string, received null"


@pytest.mark.parametrize(
    ("path", "body", "expected", "received"),
    [
        ("/v1/events", [], "object", "array"),
        ("/v1/events/batch", {}, "array", "object"),
        ("/v1/search", [], "object", "array"),
        ("/v1/sessions/start", [], "object", "array"),
    ],
)
async def test_1_3_wrong_type_of_the_whole_body(
    api: Api, world: World, path: str, body: object, expected: str, received: str
) -> None:
    issue = (await issues_of(api, world, path, body))[0]
    assert (issue["code"], issue["expected"], issue["path"]) == ("invalid_type", expected, [])
    assert issue["message"] == f"Invalid input: expected {expected}, received {received}"


async def test_1_3_wrong_type_of_a_record(api: Api, world: World) -> None:
    (issue,) = await issues_of(api, world, "/v1/sessions/start", {"projectId": world.project_id, "metadata": []})
    assert (issue["code"], issue["expected"], issue["path"]) == ("invalid_type", "record", ["metadata"])


async def test_1_3_not_an_integer(api: Api, world: World) -> None:
    event = make_event(projectId=world.project_id, occurredAtEpoch=1.5)
    (issue,) = await issues_of(api, world, "/v1/events", event)
    assert issue == {
        "code": "invalid_type",
        "expected": "int",
        "format": "safeint",
        "path": ["occurredAtEpoch"],
        "message": "Invalid input: expected int, received number",
    }


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/search", {"projectId": "default", "query": ""}, "query"),
        ("/v1/search", {"projectId": "", "query": "x"}, "projectId"),
        ("/v1/sessions/start", {"projectId": "default", "externalSessionId": ""}, "externalSessionId"),
        ("/v1/events", make_event(projectId="default", contentSessionId=""), "contentSessionId"),
    ],
)
async def test_1_3_string_too_short(api: Api, world: World, path: str, body: object, where: str) -> None:
    (issue,) = await issues_of(api, world, path, body)
    assert issue == {
        "origin": "string",
        "code": "too_small",
        "minimum": 1,
        "inclusive": True,
        "path": [where],
        "message": "Too small: expected string to have >=1 characters",
    }


async def test_1_3_array_too_short_and_too_long(api: Api, world: World) -> None:
    (short,) = await issues_of(api, world, "/v1/events/batch", [])
    assert (short["origin"], short["code"], short["minimum"], short["inclusive"]) == ("array", "too_small", 1, True)
    assert short["message"] == "Too small: expected array to have >=1 items"
    (long,) = await issues_of(api, world, "/v1/events/batch", [make_event(projectId="default")] * 501)
    assert (long["origin"], long["code"], long["maximum"], long["inclusive"]) == ("array", "too_big", 500, True)
    assert long["message"] == "Too big: expected array to have <=500 items"


async def test_1_3_number_too_small(api: Api, world: World) -> None:
    event = make_event(projectId=world.project_id, occurredAtEpoch=-1)
    (issue,) = await issues_of(api, world, "/v1/events", event)
    assert (issue["origin"], issue["code"], issue["minimum"]) == ("number", "too_small", 0)
    assert issue["message"] == "Too small: expected number to be >=0"
    (limit,) = await issues_of(api, world, "/v1/search", {"projectId": "default", "query": "x", "limit": 0})
    assert (limit["origin"], limit["code"], limit["path"]) == ("number", "too_small", ["limit"])


@pytest.mark.parametrize(("path", "most"), [("/v1/search", 100), ("/v1/context", 50)])
async def test_1_3_too_big(api: Api, world: World, path: str, most: int) -> None:
    body = {"projectId": world.project_id, "query": "x", "limit": most + 1}
    (issue,) = await issues_of(api, world, path, body)
    assert issue == {
        "origin": "number",
        "code": "too_big",
        "maximum": most,
        "inclusive": True,
        "path": ["limit"],
        "message": f"Too big: expected number to be <={most}",
    }


async def test_1_3_enum(api: Api, world: World) -> None:
    (issue,) = await issues_of(api, world, "/v1/events", make_event(projectId="default", sourceType="me"))
    assert issue == {
        "code": "invalid_value",
        "values": ["hook", "worker", "provider", "server", "api"],
        "path": ["sourceType"],
        "message": 'Invalid option: expected one of "hook"|"worker"|"provider"|"server"|"api"',
    }


@pytest.mark.parametrize("query", ["generate=1", "wait=yes", "wait=", "generate=TRUE", "wait=true&wait=true"])
async def test_1_3_query_flag_that_is_neither(api: Api, world: World, query: str) -> None:
    (issue,) = await issues_of(api, world, f"/v1/events?{query}", make_event(projectId="default"))
    assert (issue["code"], issue["message"], issue["path"]) == (
        "invalid_union",
        "Invalid input",
        [query.split("=")[0]],
    )
    assert isinstance(issue["errors"], list)


async def test_1_3_path_has_the_index_of_a_batch_item(api: Api, world: World) -> None:
    good = make_event(projectId="default")
    issues = await issues_of(api, world, "/v1/events/batch", [good, 5, {**good, "eventType": ""}])
    assert [issue["path"] for issue in issues if issue["path"] != [1, "eventType"]] == [[1], [2, "eventType"]]


async def test_1_3_all_faults_are_told_at_once(api: Api, world: World) -> None:
    body = make_event(projectId=5, sourceType="me", eventType=None, occurredAtEpoch="now")
    paths = {issue["path"][0] for issue in await issues_of(api, world, "/v1/events", body)}
    assert paths == {"projectId", "sourceType", "eventType", "occurredAtEpoch"}


@pytest.mark.parametrize("value", [True, False])
async def test_1_3_booleans_are_no_numbers(api: Api, world: World, value: bool) -> None:
    """Section 11, traps: `True` is an `int` in Python."""
    event = make_event(projectId="default", occurredAtEpoch=value)
    (issue,) = await issues_of(api, world, "/v1/events", event)
    assert issue["message"] == "Invalid input: expected number, received boolean"
    (limit,) = await issues_of(api, world, "/v1/search", {"projectId": "default", "query": "x", "limit": value})
    assert limit["message"] == "Invalid input: expected number, received boolean"
