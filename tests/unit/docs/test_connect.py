"""What docs/howto/connect.md tells people to paste is what clients document and what our API describes."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jsonschema_rs
import pytest

from commonplace_runtime import contract
from tests.howto import CONNECT, REPOSITORY, Command, blocks, commands, files

Json = dict[str, Any]

FILES: Final = files(CONNECT)
CURL: Final = commands(CONNECT, "curl")
URL: Final = "http://127.0.0.1:8787"

_HEADERS: Final = {"type": "object", "required": ["Authorization"], "additionalProperties": {"type": "string"}}


def _servers(under: str, server: Json, **beside: Any) -> Json:
    """The schema of a file that holds servers by name `under` a key, and nothing else but what is `beside`."""
    named = {"type": "object", "minProperties": 1, "additionalProperties": server}
    return {
        "type": "object",
        "required": [under],
        "additionalProperties": False,
        "properties": {under: named, **beside},
    }


def _server(*required: str, **properties: Any) -> Json:
    known = {"url": {"type": "string"}, "headers": _HEADERS, **properties}
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": known}


_INPUTS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type", "id", "description"],
        "additionalProperties": False,
        "properties": {
            "type": {"const": "promptString"},
            "id": {"type": "string"},
            "description": {"type": "string"},
            "password": {"const": True},
        },
    },
}
DOCUMENTED: Final = {
    ".mcp.json": _servers("mcpServers", _server("type", "url", "headers", type={"const": "http"})),
    ".cursor/mcp.json": _servers("mcpServers", _server("url", "headers")),
    ".vscode/mcp.json": _servers("servers", _server("type", "url", "headers", type={"const": "http"}), inputs=_INPUTS),
}
"""What each client documents of a remote server with a header, as far as we use it."""
VARIABLE: Final = {
    ".mcp.json": r"\$\{(\w+)\}",
    ".cursor/mcp.json": r"\$\{env:(\w+)\}",
    ".vscode/mcp.json": r"\$\{input:([\w-]+)\}",
}


def _server_of(name: str) -> Json:
    content = json.loads(FILES[name])
    server: Json = content.get("mcpServers", content.get("servers"))["commonplace"]
    return server


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_file_has_the_shape_that_its_client_documents(name: str) -> None:
    jsonschema_rs.validator_for(DOCUMENTED[name]).validate(json.loads(FILES[name]))


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_file_takes_the_token_from_a_variable_of_its_client(name: str) -> None:
    server = _server_of(name)
    known = {"COMMONPLACE_URL", "COMMONPLACE_TOKEN"} | {
        each["id"] for each in json.loads(FILES[name]).get("inputs", ())
    }

    assert re.fullmatch(f"Bearer {VARIABLE[name]}", server["headers"]["Authorization"])
    assert set(re.findall(VARIABLE[name], json.dumps(server))) <= known
    assert re.sub(VARIABLE[name], URL, server["url"]) == contract.mcp_url(URL)


def test_the_file_of_codex_is_what_its_command_writes() -> None:
    [add, _] = commands(CONNECT, "codex")
    name, _, url, _, variable = add.words[3:]

    assert tomllib.loads(FILES["~/.codex/config.toml"])["mcp_servers"] == {
        name: {"url": url.replace("$COMMONPLACE_URL", URL), "bearer_token_env_var": variable}
    }


def test_the_line_for_claude_code_is_the_one_that_we_print() -> None:
    shown = {line.strip() for _, content in blocks(CONNECT) for line in content.splitlines()}
    [add, *_] = commands(CONNECT, "claude")
    typed = add.line.replace('"$COMMONPLACE_URL/v1/mcp"', contract.mcp_url(URL))

    assert contract.connect_command(contract.mcp_url(URL), "cm_…") in shown
    assert typed == contract.connect_command(contract.mcp_url(URL), "$COMMONPLACE_TOKEN")


def _asked(command: Command) -> tuple[str, str, Any]:
    """Method, path and body of a curl line."""
    words = command.words
    [url] = [word for word in words if word.startswith("$COMMONPLACE_URL")]
    body = json.loads(words[words.index("--json") + 1]) if "--json" in words else None
    return "get" if body is None else "post", urlsplit(url.removeprefix("$COMMONPLACE_URL")).path, body


def test_the_curl_lines_show_what_the_document_promises() -> None:
    paths = {path for _, path, _ in map(_asked, CURL)}
    assert paths >= {"/v1/events", "/v1/memories", "/v1/search", "/v1/context", "/v1/forget", "/v1/export", "/v1/keys"}


@pytest.mark.parametrize("command", CURL, ids=lambda command: "-".join(_asked(command)[:2]))
def test_a_curl_line_asks_what_the_api_describes(command: Command) -> None:
    description = json.loads((REPOSITORY / "docs" / "reference" / "openapi.json").read_text())
    method, path, body = _asked(command)

    operation = description["paths"][path][method]

    if body is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema_rs.validator_for({**schema, "components": description["components"]}).validate(body)
        if not path.startswith(contract.MCP_PATH):
            known = description["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
            assert set(body) <= set(known["properties"]), "the API ignores what it does not know"


@pytest.mark.parametrize("document", sorted((REPOSITORY / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_no_document_shows_a_whole_token(document: Path) -> None:
    assert re.findall(r"cm_[A-Za-z0-9]{8,}_?[A-Za-z0-9]{20,}", document.read_text()) == []
