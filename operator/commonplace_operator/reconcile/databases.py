"""
The databases of the MemoryRuntimes met, so that rows can be released after a runtime and its Secret are gone.

A namespace is deleted in no order: the Secret with the URI often goes before the keys. So the URI of every runtime with
a team is also kept in the operator's own Secret, and outlives a restart; it is forgotten with the runtime's last team.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import structlog

from commonplace_operator import errors
from commonplace_operator.cluster import Body, Cluster
from commonplace_operator.resources import names

LIMIT: Final = 1000
_PREFIX: Final = "database."
_log = structlog.get_logger("commonplace_operator.databases")

Place = tuple[str, str]
"""Namespace and name of a MemoryRuntime."""


def entry_name(place: Place) -> str:
    """Key of the runtime's entry in the operator's Secret, which holds no slash and 253 characters at most."""
    return _PREFIX + hashlib.sha256("/".join(place).encode()).hexdigest()


class KnownDatabases:
    """Connection URIs by runtime: those met by this process, and those kept in Secret `namespace`/`secret`."""

    def __init__(self, cluster: Cluster, *, namespace: str, secret: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._secret = secret
        self._met: dict[Place, str] = {}
        self._kept: dict[Place, str] = {}

    def load(self, data: Mapping[str, Any]) -> None:
        """Take over what an earlier process kept in the Secret's `data`; what cannot be read is left alone."""
        for name, encoded in data.items():
            if not name.startswith(_PREFIX):
                continue
            try:
                entry = json.loads(base64.b64decode(encoded))
                place, uri = (str(entry["namespace"]), str(entry["name"])), str(entry["uri"])
            except (binascii.Error, ValueError, KeyError, TypeError):
                _log.warning("kept_database_unreadable", entry=name)
                continue
            self._met[place] = self._kept[place] = uri

    def places(self) -> tuple[Place, ...]:
        """The runtimes whose database is kept."""
        return tuple(self._kept)

    def of(self, place: Place) -> str | None:
        """The URI last known."""
        return self._met.get(place) or self._kept.get(place)

    def meet(self, place: Place, uri: str) -> None:
        """Remember it for this process; of more than `LIMIT` the one that was met first is let go."""
        self._met[place] = uri
        if len(self._met) > LIMIT:
            del self._met[next(iter(self._met))]

    async def keep(self, place: Place) -> None:
        """
        Remember the URI met beyond this process. Called before the first row of a team is touched.

        Raises ClusterUnavailable, Forbidden; a Secret that is full or gone is logged and costs the durability only.
        """
        uri = self._met.get(place)
        if uri is None or self._kept.get(place) == uri:
            return
        if place not in self._kept and len(self._kept) >= LIMIT:
            _log.warning("database_not_kept", runtime="/".join(place), detail=f"{LIMIT} are kept already")
            return
        entry = json.dumps({"namespace": place[0], "name": place[1], "uri": uri})
        value = base64.b64encode(entry.encode()).decode()
        if await self._patch(place, {"op": "add", "path": f"/data/{entry_name(place)}", "value": value}):
            self._kept[place] = uri

    async def forget(self, place: Place) -> None:
        """The runtime is gone and so is its last team."""
        self._met.pop(place, None)
        if place in self._kept and await self._patch(place, {"op": "remove", "path": f"/data/{entry_name(place)}"}):
            del self._kept[place]

    async def _patch(self, place: Place, operation: Body) -> bool:
        try:
            await self._cluster.patch(names.SECRET, self._namespace, self._secret, [operation])
        except (errors.NotFound, errors.Refused) as error:
            _log.warning("database_not_kept", runtime="/".join(place), detail=str(error))
            return False
        return True
