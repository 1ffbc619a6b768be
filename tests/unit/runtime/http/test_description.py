"""What `Operation`s promise, and that the frozen description is theirs."""

import ast
import copy
import inspect
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema_rs
import pytest

from commonplace_runtime.entrypoints import http
from commonplace_runtime.entrypoints.http import errors, protocol
from commonplace_runtime.entrypoints.http.app import OPERATIONS
from commonplace_runtime.entrypoints.http.catalogue import FAULTS
from commonplace_runtime.entrypoints.http.openapi import document
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import gate_of
from docs import generate

Json = dict[str, Any]
OPEN = {"getInfo", "getLiveness", "getHealth", "getReadiness", "getVersion", "getInstructions", "getOpenapi"}
"""Operations without a key: each on purpose."""


def of_each_operation(function: Any) -> Any:
    return pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)(function)


@pytest.fixture(scope="module")
def description() -> Json:
    return document(OPERATIONS)


def test_the_frozen_reference_is_what_the_code_says() -> None:
    found = generate.problems(generate.wanted_files())
    assert found == [], "\n\n".join([*found, f"if this is meant, run: {generate.COMMAND}"])


def test_the_ids_are_unique() -> None:
    names = [operation.id for operation in OPERATIONS]
    assert sorted(names) == sorted(set(names))
    assert [name for name in names if not re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name)] == []


@of_each_operation
def test_an_operation_says_what_it_answers(operation: Operation) -> None:
    assert operation.answer is not None or operation.media != "application/json"


@of_each_operation
def test_an_operation_says_what_it_does(operation: Operation) -> None:
    summary = (inspect.getdoc(operation.handler) or "").partition("\n")[0]
    assert 8 < len(summary) <= 120


@of_each_operation
def test_an_operation_that_reads_a_body_describes_it(operation: Operation) -> None:
    module = inspect.getsource(inspect.getmodule(operation.handler))  # type: ignore[arg-type]
    names = set(re.findall(r"\w+", inspect.getsource(operation.handler)))
    reads = "read_json" in names or any(
        "read_json" in ast.unparse(node)
        for node in ast.parse(module).body
        if isinstance(node, ast.AsyncFunctionDef) and node.name in names and node.name != operation.handler.__name__
    )
    assert not reads or operation.body is not None


@of_each_operation
def test_the_example_of_a_body_is_of_its_schema(operation: Operation, description: Json) -> None:
    if operation.body is None or operation.body_media != "application/json":
        return
    assert operation.example is not None
    schema = described(description, operation)["requestBody"]["content"]["application/json"]["schema"]
    jsonschema_rs.validator_for({**schema, "components": description["components"]}).validate(operation.example)


@of_each_operation
def test_a_path_names_the_arguments_of_its_handler(operation: Operation) -> None:
    parts = re.findall(r"\{(\w+)\}", operation.path)
    assert set(parts) <= set(inspect.signature(operation.handler).parameters)
    assert set(operation.path_examples) <= set(parts)


def test_only_probes_and_the_description_need_no_key(description: Json) -> None:
    assert {operation.id for operation in OPERATIONS if gate_of(operation.handler) is None} == OPEN
    for method, path, operation in generate.operations_of(description):
        assert (operation["security"] == []) == (operation["operationId"] in OPEN), f"{method} {path}"


def test_the_scopes_are_those_of_the_gate(description: Json) -> None:
    shown = {each["operationId"]: each.get("x-scopes") for _, _, each in generate.operations_of(description)}
    assert shown["createEvent"] == ["events:write", "memories:write"]
    assert shown["getUsage"] == ["memories:read", "observations:read"]
    assert shown["getInfo"] is None


def test_a_route_with_a_key_says_how_it_may_be_refused(description: Json) -> None:
    shown = {each["operationId"]: set(each["responses"]) for _, _, each in generate.operations_of(description)}
    assert shown["createEvent"] == {"201", "400", "401", "402", "403", "413", "415", "429", "503"}
    assert shown["cancelJob"] == {"200", "401", "402", "403", "404", "409", "429", "503"}
    assert "402" not in shown["getUsage"]


@of_each_operation
def test_the_fields_of_a_query_are_parameters(operation: Operation, description: Json) -> None:
    shown = {each["name"] for each in described(description, operation).get("parameters", ()) if each["in"] == "query"}
    assert shown == set(() if operation.query is None else get_type_hints(operation.query))


@of_each_operation
def test_an_operation_describes_the_query_that_it_reads(operation: Operation) -> None:
    source = inspect.getsource(operation.handler)
    reads = any(word in source for word in ("query_params", "read_flag", "read_count", "_query(", "_page("))
    assert not reads or operation.query is not None


def test_every_reference_leads_somewhere(description: Json) -> None:
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(description))):
        place = description
        for part in reference.split("/"):
            place = place[part]


def test_no_two_shapes_share_a_name(description: Json) -> None:
    assert [name for name in description["components"]["schemas"] if not re.fullmatch(r"[A-Za-z]+", name)] == []


def test_a_value_that_may_be_anything_is_described_as_that(description: Json) -> None:
    payload = description["components"]["schemas"]["NewEvent"]["properties"]["payload"]
    assert payload["$ref"] == "#/components/schemas/Json"
    assert "type" not in description["components"]["schemas"]["Json"]


# --- the catalogue


def test_the_catalogue_has_every_fault_of_the_table() -> None:
    told = {(fault.status, fault.error) for fault in FAULTS}
    assert {(status, name) for _, status, name in errors.TABLE} - told == set()
    assert {(status, name) for status, (name, _) in protocol._FAULTS.items()} - told == set()


def test_the_catalogue_has_every_fault_of_http() -> None:
    told = {(fault.status, fault.error) for fault in FAULTS}
    for file in sorted(Path(http.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "HttpFault":
                status, name, _ = node.args
                assert isinstance(status, ast.Constant), file
                assert isinstance(name, ast.Constant), file
                assert (status.value, name.value) in told, f"{file}:{node.lineno}"


def test_the_examples_of_faults_are_of_their_schemas(description: Json) -> None:
    for response in description["components"]["responses"].values():
        content = response["content"]["application/json"]
        validator = jsonschema_rs.validator_for({**content["schema"], "components": description["components"]})
        for example in content["examples"].values():
            validator.validate(example["value"])


# --- what breaks clients


def changed(description: Json, change: Any) -> Json:
    made = copy.deepcopy(description)
    change(made)
    return made


def described(description: Json, operation: Operation) -> Json:
    return next(each for _, _, each in generate.operations_of(description) if each["operationId"] == operation.id)


def test_nothing_breaks_where_nothing_changes(description: Json) -> None:
    assert generate.breaking(description, description) == []


def test_an_operation_that_vanishes_breaks_clients(description: Json) -> None:
    after = changed(description, lambda made: made["paths"].pop("/v1/search"))
    assert generate.breaking(description, after) == ["search (POST /v1/search) is gone"]


def test_an_operation_that_moves_breaks_clients(description: Json) -> None:
    after = changed(description, lambda made: made["paths"].update({"/v2/search": made["paths"].pop("/v1/search")}))
    assert generate.breaking(description, after) == ["search moved from POST /v1/search to POST /v2/search"]


def test_a_field_that_is_newly_required_breaks_clients(description: Json) -> None:
    after = changed(
        description, lambda made: made["components"]["schemas"]["SearchQuestion"]["required"].append("projectId")
    )
    assert generate.breaking(description, after) == ["search now requires the field projectId"]


def test_a_field_that_is_newly_required_in_an_item_breaks_clients(description: Json) -> None:
    after = changed(description, lambda made: made["components"]["schemas"]["NewEvent"]["required"].append("payload"))
    assert generate.breaking(description, after) == [
        "createEvent now requires the field payload",
        "createEvents now requires the field [].payload",
    ]


def test_a_field_that_is_no_longer_answered_breaks_clients(description: Json) -> None:
    after = changed(
        description, lambda made: made["components"]["schemas"]["FoundContext"]["properties"].pop("context")
    )
    assert generate.breaking(description, after)[0] == "getContext no longer answers the field context"


def test_a_new_operation_and_a_new_optional_field_break_nobody(description: Json) -> None:
    def grow(made: Json) -> None:
        made["components"]["schemas"]["NewEvent"]["properties"]["colour"] = {"type": "string"}
        made["paths"]["/v1/more"] = {"get": {**made["paths"]["/v1/info"]["get"], "operationId": "getMore"}}

    assert generate.breaking(description, changed(description, grow)) == []
