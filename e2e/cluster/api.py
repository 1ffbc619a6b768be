"""A Kubernetes API client of one connection, for what runs before any library is installed and for quick tests."""

import base64
import http.client
import json
import re
import ssl
import urllib.parse
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

_TIMEOUT_SECONDS: Final = 15.0


class ApiClient:
    """
    Requests with the credentials of a kubeconfig that kubeadm wrote, over one kept connection. Not for several threads.

    Status codes are answers here, not exceptions: the caller judges them. Raises OSError when the server is away.
    """

    def __init__(self, kubeconfig: Path) -> None:
        text = kubeconfig.read_text()
        server = urllib.parse.urlsplit(_field(text, "server"))
        with TemporaryDirectory() as directory:
            # ssl reads a client certificate from files only.
            certificate, key = Path(directory, "crt"), Path(directory, "key")
            certificate.write_bytes(base64.b64decode(_field(text, "client-certificate-data")))
            key.write_bytes(base64.b64decode(_field(text, "client-key-data")))
            authority = base64.b64decode(_field(text, "certificate-authority-data")).decode()
            context = ssl.create_default_context(cadata=authority)
            context.load_cert_chain(certificate, key)
        self._connection = http.client.HTTPSConnection(
            str(server.hostname), server.port, context=context, timeout=_TIMEOUT_SECONDS
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: object = None, *, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """
        Status code and the decoded answer (parsed where it is JSON, else text).

        path: with its query. body: anything that JSON can hold. content_type: `application/merge-patch+json`,
        `application/apply-patch+yaml` and so on for PATCH.
        """
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if payload is not None else {})
        try:
            self._connection.request(method, path, payload, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError) as away:
            self._connection.close()
            raise OSError(f"{method} {path}: {away}") from away
        if answer.headers.get_content_type() == "application/json":
            return answer.status, json.loads(content)
        return answer.status, content.decode(errors="replace")


def _field(kubeconfig: str, name: str) -> str:
    match = re.search(rf"^\s*{re.escape(name)}: (\S+)$", kubeconfig, re.MULTILINE)
    if match is None:
        raise ValueError(f"the kubeconfig has no {name}: only those that kubeadm writes are understood")
    return match[1]
