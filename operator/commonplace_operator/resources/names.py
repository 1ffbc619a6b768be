"""Every name of our API group that more than one module spells: kinds, labels, annotations, finalizer."""

from dataclasses import dataclass
from typing import Final

GROUP: Final = "commonplace.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FIELD_MANAGER: Final = "commonplace-operator"
AUTOSCALER_MANAGER: Final = "commonplace-autoscaler"
"""Owns the number of a Deployment's replicas, and nothing else."""
FINALIZER: Final = f"{GROUP}/cleanup"
"""Ours; kopf is told another name, because it strips the one it knows."""

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "commonplace-operator"
LABEL_OWNER_UID: Final = f"{GROUP}/owner-uid"
LABEL_API_KEY: Final = f"{GROUP}/apikey"
LABEL_RUNTIME: Final = f"{GROUP}/runtime"
LABEL_MIGRATION: Final = f"{GROUP}/migration"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"

ANNOTATION_ADOPT: Final = f"{GROUP}/adopt"
ANNOTATION_ROTATE: Final = f"{GROUP}/rotate"
ANNOTATION_OPERATOR_CLASS: Final = f"{GROUP}/operator-class"
ANNOTATION_ABANDON: Final = f"{GROUP}/abandon"
ANNOTATION_MAC: Final = f"{GROUP}/mac"
ANNOTATION_REVISION: Final = f"{GROUP}/revision"
ANNOTATION_CONTENT_HASH: Final = f"{GROUP}/content-hash"
ANNOTATION_CREDENTIALS_HASH: Final = f"{GROUP}/credentials-hash"
ANNOTATION_ALLOW_OLDER: Final = f"{GROUP}/allow-older-version"
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
POD: Final = Kind(kind="Pod", plural="pods", api_version="v1")
SERVICE: Final = Kind(kind="Service", plural="services", api_version="v1")
SERVICE_ACCOUNT: Final = Kind(kind="ServiceAccount", plural="serviceaccounts", api_version="v1")
DEPLOYMENT: Final = Kind(kind="Deployment", plural="deployments", api_version="apps/v1")
STATEFUL_SET: Final = Kind(kind="StatefulSet", plural="statefulsets", api_version="apps/v1")
JOB: Final = Kind(kind="Job", plural="jobs", api_version="batch/v1")
INGRESS: Final = Kind(kind="Ingress", plural="ingresses", api_version="networking.k8s.io/v1")
NETWORK_POLICY: Final = Kind(kind="NetworkPolicy", plural="networkpolicies", api_version="networking.k8s.io/v1")
DISRUPTION_BUDGET: Final = Kind(kind="PodDisruptionBudget", plural="poddisruptionbudgets", api_version="policy/v1")
AUTOSCALER: Final = Kind(
    kind="HorizontalPodAutoscaler", plural="horizontalpodautoscalers", api_version="autoscaling/v2"
)
SCALED_OBJECT: Final = Kind(kind="ScaledObject", plural="scaledobjects", api_version="keda.sh/v1alpha1")
SERVICE_MONITOR: Final = Kind(kind="ServiceMonitor", plural="servicemonitors", api_version="monitoring.coreos.com/v1")
LEASE: Final = Kind(kind="Lease", plural="leases", api_version="coordination.k8s.io/v1")

OURS: Final = (RUNTIME, TEAM, API_KEY, QUOTA)
