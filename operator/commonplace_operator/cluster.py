"""
The Kubernetes API: get, list, server-side apply, create, patch, delete.

The official client's asyncio half carries the requests. Its dynamic client is used for transport and
authentication only: paths come from `resources.names`, because its discovery costs two round trips and a
cache file on disk, and cannot address `/status`. Every call has a time-out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from commonplace_operator import errors
from commonplace_operator.resources.names import FIELD_MANAGER, SECRET, Kind

Body: TypeAlias = dict[str, Any]
PAGE_SIZE: Final = 500
CONNECTIONS: Final = 16


class Cluster(Protocol):
    """The Kubernetes API as the reconcilers see it. Every call may raise ClusterUnavailable or Forbidden."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Body:
        """One object. Raises NotFound."""
        ...

    async def list(
        self, kind: Kind, namespace: str | None, *, field_selector: str | None = None, label_selector: str | None = None
    ) -> "list[Body]":
        """All objects, page by page; namespace None means all namespaces."""
        ...

    async def create(self, kind: Kind, body: Body) -> Body:
        """A new object. Raises Conflict when one of that name exists, Refused."""
        ...

    async def apply(
        self,
        kind: Kind,
        body: Body,
        *,
        subresource: str | None = None,
        manager: str = FIELD_MANAGER,
        force: bool = True,
        dry_run: bool = False,
    ) -> Body:
        """
        Server-side apply as `manager`, our field manager, forcing the fields that `body` names.

        With `metadata.uid` and `metadata.resourceVersion` in `body` it raises Conflict where either differs; without
        `force` also where another manager owns a field with another value. dry_run: nothing is stored. Raises Refused.
        """
        ...

    async def replace(self, kind: Kind, body: Body) -> Body:
        """Put `body` in the place of the object. Raises Conflict where its uid or resourceVersion differs, NotFound."""
        ...

    async def patch(self, kind: Kind, namespace: str, name: str, operations: Sequence[Body]) -> Body:
        """A JSON patch. Raises NotFound, Refused when a `test` operation fails."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object of that uid and what it owns. Raises NotFound, Conflict for another uid."""
        ...


def object_path(kind: Kind, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    """The URL's path of a kind's objects, of one object, or of its subresource."""
    parts = [kind.path]
    if namespace:
        parts += ["namespaces", namespace]
    parts.append(kind.plural)
    if name:
        parts.append(name)
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def _message(error: ApiException) -> str:
    try:
        status = json.loads(error.body or "")
        return str(status.get("message") or error.reason)
    except (TypeError, ValueError, AttributeError):
        return str(error.reason)


def translated(error: ApiException, kind: Kind) -> errors.OperatorError:
    """The operator's word for an HTTP answer. What a server says about a Secret's content is not repeated."""
    message = _message(error)
    match error.status:
        case 404:
            return errors.NotFound(message)
        case 409:
            return errors.Conflict(message)
        case 401 | 403:
            return errors.Forbidden(message)
        case 408 | 429 | 500 | 502 | 503 | 504:
            return errors.ClusterUnavailable(f"HTTP {error.status}")
        case _:
            return errors.Refused(f"HTTP {error.status} for a Secret" if kind == SECRET else message)


class KubernetesCluster:
    """A `Cluster` over HTTPS."""

    def __init__(self, configuration: kubernetes_client.Configuration, *, timeout: float) -> None:
        configuration.connection_pool_maxsize = CONNECTIONS
        self._client = kubernetes_client.ApiClient(configuration)
        self._dynamic = DynamicClient(self._client)  # type: ignore[no-untyped-call]
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def _request(self, method: str, kind: Kind, path: str, **parameters: object) -> Body:
        try:
            # A header dictionary of our own: the client's default argument is shared between calls.
            response = await self._dynamic.request(
                method,
                path,
                serialize=False,
                _request_timeout=self._timeout,
                header_params={},
                query_params=[],
                **parameters,
            )
            answer: Body = await response.json()
        except ApiException as error:
            # `from None`: the client's error prints the body and the headers of the answer.
            raise translated(error, kind) from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise errors.ClusterUnavailable(f"{type(error).__name__} at {method.upper()} {path}") from None
        return answer

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Body:
        """See `Cluster`."""
        return await self._request("get", kind, object_path(kind, namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None, *, field_selector: str | None = None, label_selector: str | None = None
    ) -> "list[Body]":
        """See `Cluster`."""
        objects: list[Body] = []
        token: str | None = None
        while True:
            page = await self._request(
                "get",
                kind,
                object_path(kind, namespace),
                limit=PAGE_SIZE,
                _continue=token,
                field_selector=field_selector,
                label_selector=label_selector,
            )
            objects.extend(page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return objects

    async def create(self, kind: Kind, body: Body) -> Body:
        """See `Cluster`."""
        path = object_path(kind, body["metadata"].get("namespace"))
        return await self._request("post", kind, path, body=body, field_manager=FIELD_MANAGER)

    async def apply(
        self,
        kind: Kind,
        body: Body,
        *,
        subresource: str | None = None,
        manager: str = FIELD_MANAGER,
        force: bool = True,
        dry_run: bool = False,
    ) -> Body:
        """See `Cluster`."""
        metadata = body["metadata"]
        path = object_path(kind, metadata.get("namespace"), metadata["name"], subresource)
        return await self._request(
            "patch",
            kind,
            path,
            body={"apiVersion": kind.api_version, "kind": kind.kind} | body,
            content_type="application/apply-patch+yaml",
            field_manager=manager,
            force_conflicts=force,
            **({"dry_run": "All"} if dry_run else {}),
        )

    async def replace(self, kind: Kind, body: Body) -> Body:
        """See `Cluster`."""
        path = object_path(kind, body["metadata"].get("namespace"), body["metadata"]["name"])
        return await self._request("put", kind, path, body=body, field_manager=FIELD_MANAGER)

    async def patch(self, kind: Kind, namespace: str, name: str, operations: Sequence[Body]) -> Body:
        """See `Cluster`."""
        return await self._request(
            "patch",
            kind,
            object_path(kind, namespace, name),
            body=[dict(operation) for operation in operations],
            content_type="application/json-patch+json",
            field_manager=FIELD_MANAGER,
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """See `Cluster`."""
        # Background: a Job deleted by the API's own default would leave its pods behind.
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        await self._request("delete", kind, object_path(kind, namespace, name), body=body)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]


async def load_configuration(environment: Mapping[str, str]) -> kubernetes_client.Configuration:
    """
    Where the API server is and who we are: `KUBECONFIG`, else the pod's service account, else `~/.kube/config`.

    Raises Refused with what to do when there is none or it cannot be read.
    """
    configuration = kubernetes_client.Configuration()
    path = environment.get("KUBECONFIG")
    try:
        if not path and "KUBERNETES_SERVICE_HOST" in environment:
            kubernetes_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            path = path or "~/.kube/config"
            await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path, client_configuration=configuration, persist_config=False
            )
    except (kubernetes_config.ConfigException, OSError, KeyError, TypeError, ValueError) as error:
        where = path or "the pod's service account"
        raise errors.Refused(
            f"no usable Kubernetes configuration in {where} ({type(error).__name__}): set KUBECONFIG"
        ) from error
    return configuration


async def open_session(configuration: kubernetes_client.Configuration, *, connections: int) -> aiohttp.ClientSession:
    """A session for kopf with the same credentials and at most that many connections."""
    transport = kubernetes_client.ApiClient(configuration).rest_client
    auth = (await configuration.auth_settings()).get("BearerToken")
    headers = {str(auth["key"]): str(auth["value"])} if auth else {}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=transport.ssl_context), headers=headers, trust_env=True
    )
