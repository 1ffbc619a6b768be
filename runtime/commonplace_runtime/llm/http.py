"""One small client for providers without an SDK: a JSON document out, a JSON document in, both bounded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from commonplace_runtime.llm.refusals import CallFailed

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
KEPT_CONNECTIONS: Final = 100
UNSENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
"""No connection was made, so nobody can have worked on the request."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer of any status. `document`: None where the body is not JSON."""

    status: int
    headers: Mapping[str, str]
    document: object


class JsonClient:
    """Posts to one provider. Never retries and never follows a redirect: a key belongs to one host."""

    def __init__(self, *, headers: Mapping[str, str], timeout_seconds: float) -> None:
        # The worker's concurrency bounds the connections.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS)
        self._client = httpx2.AsyncClient(headers=dict(headers), timeout=timeout_seconds, limits=limits)

    async def post(self, url: str, document: Mapping[str, Any]) -> Reply:
        """One request. Raises CallFailed when nothing that can be read came back."""
        try:
            async with self._client.stream("POST", url, json=document) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise CallFailed("invalid_output", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            reason = f"the request cannot be sent ({type(error).__name__}): check the base URL and the key"
            raise CallFailed("configuration", reason) from error
        except httpx2.DecodingError as error:
            raise CallFailed("invalid_output", "the answer's compression is broken") from error
        except UNSENT as error:
            raise CallFailed("transient", f"the provider was not reached: {type(error).__name__}") from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            reason = f"the connection to the provider was lost: {type(error).__name__}"
            raise CallFailed("transient", reason, is_broken_off=True) from error
        return Reply(status=response.status_code, headers=response.headers, document=_parsed(bytes(body)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
