"""Every name of our API group that more than one module spells: kinds, labels, annotations, finalizer."""

from dataclasses import dataclass
from typing import Final

GROUP: Final = "commonplace.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FIELD_MANAGER: Final = "commonplace-operator"
FINALIZER: Final = f"{GROUP}/cleanup"
"""Ours; kopf is told another name, because it strips the one it knows."""

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "commonplace-operator"
LABEL_OWNER_UID: Final = f"{GROUP}/owner-uid"
LABEL_API_KEY: Final = f"{GROUP}/apikey"

ANNOTATION_ADOPT: Final = f"{GROUP}/adopt"
ANNOTATION_ROTATE: Final = f"{GROUP}/rotate"
ANNOTATION_OPERATOR_CLASS: Final = f"{GROUP}/operator-class"
ANNOTATION_ABANDON: Final = f"{GROUP}/abandon"
ANNOTATION_MAC: Final = f"{GROUP}/mac"
ANNOTATION_REVISION: Final = f"{GROUP}/revision"
ANNOTATION_CONTENT_HASH: Final = f"{GROUP}/content-hash"
ANNOTATION_TERM: Final = f"{GROUP}/term"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of the Kubernetes API and where its objects live."""

    kind: str
    plural: str
    api_version: str

    @property
    def path(self) -> str:
        """Root of the kind's group version: `/api/v1` or `/apis/<group>/<version>`."""
        prefix = "apis" if "/" in self.api_version else "api"
        return f"/{prefix}/{self.api_version}"


RUNTIME: Final = Kind(kind="MemoryRuntime", plural="memoryruntimes", api_version=API_VERSION)
TEAM: Final = Kind(kind="MemoryTeam", plural="memoryteams", api_version=API_VERSION)
API_KEY: Final = Kind(kind="ApiKey", plural="apikeys", api_version=API_VERSION)
QUOTA: Final = Kind(kind="Quota", plural="memoryquotas", api_version=API_VERSION)
SECRET: Final = Kind(kind="Secret", plural="secrets", api_version="v1")
NAMESPACE: Final = Kind(kind="Namespace", plural="namespaces", api_version="v1")
EVENT: Final = Kind(kind="Event", plural="events", api_version="events.k8s.io/v1")
LEASE: Final = Kind(kind="Lease", plural="leases", api_version="coordination.k8s.io/v1")

OURS: Final = (RUNTIME, TEAM, API_KEY, QUOTA)
