from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from commonplace_runtime.entrypoints.http.envelope import SECURITY_HEADERS, Envelope


async def test_our_headers_take_the_place_of_an_answers_own() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given = {"X-Frame-Options": "ALLOWALL", "X-Request-Id": "theirs", "X-Kept": "yes"}
        await Response(b"{}", headers=given)(scope, receive, send)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/v1/x", "headers": [(b"x-request-id", b"ours")]}
    await Envelope(app)(scope, receive, send)

    names = [name for name, _ in sent[0]["headers"]]
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert len(names) == len(set(names))
    assert headers["x-request-id"] == "ours"
    assert headers["x-kept"] == "yes"
    assert {name.lower(): value for name, value in SECURITY_HEADERS.items()}.items() <= headers.items()
