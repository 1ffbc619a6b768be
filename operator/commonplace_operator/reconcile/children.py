"""Children written by server-side apply: only ours, only where something differs, with nothing left over."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from commonplace_operator import errors
from commonplace_operator.children.difference import says_all
from commonplace_operator.cluster import Body
from commonplace_operator.reconcile.context import Context
from commonplace_operator.resources import names
from commonplace_operator.resources.names import Kind
from commonplace_operator.resources.objects import MemoryRuntime

KINDS: Final = {
    kind.kind: kind
    for kind in (
        names.SECRET,
        names.SERVICE,
        names.SERVICE_ACCOUNT,
        names.DEPLOYMENT,
        names.STATEFUL_SET,
        names.JOB,
        names.INGRESS,
        names.NETWORK_POLICY,
        names.DISRUPTION_BUDGET,
        names.AUTOSCALER,
        names.SCALED_OBJECT,
        names.SERVICE_MONITOR,
    )
}

_CONTESTED: Final = {names.SERVICE: "ports", names.DEPLOYMENT: "template", names.STATEFUL_SET: "template"}
"""The part of the spec where fields of others may stand in the way of ours."""


class ChildTaken(Exception):
    """An object of a child's name exists and is not ours; the message says what to do."""


class KindUnknown(Exception):
    """The cluster has no such kind; the message says what to do."""


def is_ours(live: Mapping[str, Any], runtime: MemoryRuntime) -> bool:
    """
    Whether we made it: it is owned by `runtime`, or labelled as of a MemoryRuntime of this name.

    An earlier one's is taken over, as after a restored cluster; without its labels a child is still no stranger.
    """
    metadata = live["metadata"]
    labels = metadata.get("labels") or {}
    is_labelled = (
        labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY and labels.get(names.LABEL_RUNTIME) == runtime.name
    )
    return is_labelled or any(owner["uid"] == runtime.uid for owner in metadata.get("ownerReferences") or ())


async def read(context: Context, kind: Kind, namespace: str, name: str) -> Body | None:
    """The object, if it exists, and the kind too."""
    try:
        return await context.cluster.get(kind, namespace, name)
    except errors.NotFound:
        return None


async def put(context: Context, runtime: MemoryRuntime, wanted: Mapping[str, Any]) -> Body:
    """
    Have the child say what `wanted` says. Gives it as it then is.

    Raises ChildTaken, KindUnknown.
    """
    kind = KINDS[wanted["kind"]]
    name = wanted["metadata"]["name"]
    live = await read(context, kind, runtime.namespace, name)
    if live is not None and not is_ours(live, runtime):
        raise ChildTaken(
            f"{kind.kind} {runtime.namespace}/{name} exists and is not the operator's; it was not touched: "
            "delete or rename it, or give the MemoryRuntime another name"
        )
    if live is not None and kind == names.STATEFUL_SET:
        wanted = _with_claims_of(live, wanted)
    marked = _marked(wanted)
    if live is not None and says_all(live, marked):
        return live
    if live is not None:
        # So that a child which was deleted meanwhile does not come back in an answer to what it was.
        marked["metadata"]["uid"] = live["metadata"]["uid"]
    try:
        written = await _apply(context, kind, live, marked)
    except errors.NotFound as error:
        raise KindUnknown(f"the cluster has no {kind.kind} ({kind.api_version}): {error}") from None
    context.metrics.writes.labels(kind.kind, "apply").inc()
    return written


async def _apply(context: Context, kind: Kind, live: Body | None, wanted: Body) -> Body:
    try:
        return await context.cluster.apply(kind, wanted)
    except errors.Refused:
        if live is None or kind not in _CONTESTED:
            raise
        await _reset(context, kind, live, wanted)
        return await context.cluster.apply(kind, wanted)


async def _reset(context: Context, kind: Kind, live: Body, wanted: Body) -> None:
    """
    Take out of a child what others wrote beside our own fields and what cannot stand together with them.

    An apply takes away only what it put there: a second port of one name, or `value` beside our `valueFrom`, would be
    refused for ever. Our part of the spec is replaced, and owned as if it had been applied.
    """
    path = _CONTESTED[kind]
    operations = [{"op": "replace", "path": f"/spec/{path}", "value": wanted["spec"][path]}]
    written = await _patch(context, kind, live, operations)
    entries = written["metadata"].get("managedFields") or []
    kept = [entry for entry in entries if not _is_our_update(entry)]
    # Only what is owned by applying goes away with a later apply that leaves it out.
    await _patch(context, kind, written, [{"op": "replace", "path": "/metadata/managedFields", "value": kept}])


async def _patch(context: Context, kind: Kind, live: Body, operations: list[Body]) -> Body:
    metadata = live["metadata"]
    test = {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]}
    written = await context.cluster.patch(kind, metadata["namespace"], metadata["name"], [test, *operations])
    context.metrics.writes.labels(kind.kind, "patch").inc()
    return written


def _is_our_update(entry: Mapping[str, Any]) -> bool:
    is_ours = entry.get("manager") == names.FIELD_MANAGER
    return is_ours and entry.get("operation") == "Update" and not entry.get("subresource")


async def drop(context: Context, runtime: MemoryRuntime, kind: Kind, name: str) -> None:
    """Delete a child of ours that is wanted no more; a StatefulSet only when its volumes will not go with it."""
    live = await read(context, kind, runtime.namespace, name)
    if live is None or not is_ours(live, runtime) or live["metadata"].get("deletionTimestamp"):
        return
    if kind == names.STATEFUL_SET and not await _lets_volumes_go(context, live):
        return  # its status, when it has seen that, has us look again
    await delete(context, kind, runtime.namespace, name, uid=live["metadata"]["uid"])


async def _lets_volumes_go(context: Context, live: Body) -> bool:
    """Whether the StatefulSet owns no claim any more; `deletionPolicy: Delete` means the runtime and nothing less."""
    path = "persistentVolumeClaimRetentionPolicy"
    if (live["spec"].get(path) or {}).get("whenDeleted") == "Delete":
        operations = [{"op": "replace", "path": f"/spec/{path}/whenDeleted", "value": "Retain"}]
        await _patch(context, names.STATEFUL_SET, live, operations)
        return False
    observed: int = (live.get("status") or {}).get("observedGeneration", 0)
    generation: int = live["metadata"]["generation"]
    return observed >= generation


async def delete(context: Context, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
    """Delete it, pods and all; that it is gone already is fine."""
    try:
        await context.cluster.delete(kind, namespace, name, uid=uid)
    except errors.NotFound:
        return
    context.metrics.writes.labels(kind.kind, "delete").inc()


def _marked(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """With a hash of itself, which also changes when a field is left out that an earlier version set."""
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    annotations = {
        **(wanted["metadata"].get("annotations") or {}),
        names.ANNOTATION_CONTENT_HASH: hashlib.sha256(text.encode()).hexdigest()[:32],
    }
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def _with_claims_of(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """A StatefulSet's claims cannot be changed: what it has stays, and the rest still follows."""
    claims = live["spec"].get("volumeClaimTemplates")
    if not claims or says_all(claims, wanted["spec"]["volumeClaimTemplates"]):
        return wanted
    return {**wanted, "spec": {**wanted["spec"], "volumeClaimTemplates": claims}}
