"""`MemoryRuntime.spec`: one class for each part, with the defaults that the schema fills in."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field

from commonplace_operator.resources.wire import SecretRef, Wire

ProviderKind = Literal["extractive", "anthropic", "gemini", "openai"]
AutoscalingMode = Literal["Operator", "HPA", "KEDA", "Manual"]
DEFAULT_URI_KEY: Final = "uri"
DEFAULT_PROVIDER_KEY: Final = "api-key"


class LabelRequirement(Wire):
    """One line of `matchExpressions`."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Wire):
    """`metav1.LabelSelector`."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether every requirement holds; an empty selector matches everything."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _holds(requirement, labels) for requirement in self.match_expressions
        )


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


class AllowedTeams(Wire):
    """Which namespaces may hold a MemoryTeam of this runtime."""

    from_: Literal["Same", "All", "Selector"] = Field(default="Same", alias="from")
    selector: LabelSelector | None = None


class ImageSpec(Wire):
    """The image of api and worker; a digest wins over a tag."""

    repository: str | None = None
    tag: str | None = None
    digest: str | None = None
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


class IngressTls(Wire):
    """A certificate in a Secret of type `kubernetes.io/tls`."""

    secret_name: str


class IngressSpec(Wire):
    """Where the API is reached from outside."""

    host: str
    class_name: str | None = None
    tls: IngressTls | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class StorageSpec(Wire):
    """A volume; `size` is a quantity."""

    size: str = "8Gi"
    class_name: str | None = None


class DatabaseSpec(Wire):
    """Where the rows are; each Secret holds a connection URI. `storage` is the embedded one's."""

    owner_secret_ref: SecretRef | None = None
    runtime_secret_ref: SecretRef | None = None
    operator_secret_ref: SecretRef | None = None
    embedded: bool = False
    storage: StorageSpec = StorageSpec()


class QueueSpec(Wire):
    """The Redis that carries the doorbell."""

    secret_ref: SecretRef | None = None
    embedded: bool = False


class ProviderSpec(Wire):
    """Who turns events into memories; in `secret_ref`'s Secret, `base-url` is another endpoint of the dialect."""

    name: ProviderKind = "extractive"
    model: str | None = None
    secret_ref: SecretRef | None = None


class ProviderChain(ProviderSpec):
    """The provider and who is asked when it fails, in order."""

    fallbacks: tuple[ProviderSpec, ...] = ()


class ApiSpec(Wire):
    """The API's pods. `resources` as in a container."""

    replicas: int = 2
    resources: Mapping[str, Any] = Field(default_factory=dict)


class AutoscalingSpec(Wire):
    """How the number of workers follows the queue; times in seconds."""

    mode: AutoscalingMode = "Operator"
    min_replicas: int = 1
    max_replicas: int = 10
    drain_target_seconds: int = 60
    target_queue_age_seconds: int = 30
    scale_down_stabilization_seconds: int = 300
    idle_cooldown_seconds: int = 300
    prometheus_address: str | None = None


class WorkersSpec(Wire):
    """The workers' pods. `concurrency`: sessions that one of them works on at once."""

    replicas: int = 1
    concurrency: int = 8
    resources: Mapping[str, Any] = Field(default_factory=dict)
    termination_grace_period_seconds: int = 120
    autoscaling: AutoscalingSpec = AutoscalingSpec()


class MonitoringSpec(Wire):
    """A ServiceMonitor for the Prometheus operator, with the labels by which it is chosen."""

    service_monitor: bool = False
    labels: dict[str, str] = Field(default_factory=dict)


class RuntimeSpec(Wire):
    """`MemoryRuntime.spec`."""

    management: Literal["Managed", "External"] = "Managed"
    version: str | None = None
    image: ImageSpec = ImageSpec()
    public_url: str | None = None
    ingress: IngressSpec | None = None
    database: DatabaseSpec = DatabaseSpec()
    queue: QueueSpec | None = None
    provider: ProviderChain = ProviderChain()
    api: ApiSpec = ApiSpec()
    workers: WorkersSpec = WorkersSpec()
    monitoring: MonitoringSpec = MonitoringSpec()
    allowed_teams: AllowedTeams = AllowedTeams()
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
