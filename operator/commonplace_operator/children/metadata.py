"""Names, labels and owner references of all children; no builder spells a label."""

from collections.abc import Mapping
from typing import Any

from commonplace_operator.resources import names
from commonplace_operator.resources.objects import ApiKey, MemoryRuntime, MemoryTeam, Quota


def owner_reference(owner: ApiKey | MemoryRuntime | MemoryTeam | Quota) -> dict[str, Any]:
    """The garbage collector removes the child with `owner`; both must be in one namespace."""
    return {
        "apiVersion": owner.kind.api_version,
        "kind": owner.kind.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def child_metadata(
    owner: ApiKey | MemoryRuntime | MemoryTeam | Quota,
    *,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    owned: bool,
) -> dict[str, Any]:
    """Metadata of a child in the owner's namespace; with `owned` it goes when the owner goes. Our labels win."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": owner.namespace,
        "labels": {
            **labels,
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            names.LABEL_OWNER_UID: owner.uid,
        },
        "annotations": dict(annotations),
    }
    if owned:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return metadata
