"""
Our four kinds, parsed once at the door.

The API server has checked the schema; what it cannot check (an unknown value from a newer schema) ends in
`InvalidObject`. Unknown fields are ignored: schemas only grow.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from commonplace_operator.errors import SpecError
from commonplace_operator.resources.conditions import RecordedCondition
from commonplace_operator.resources.names import API_KEY, QUOTA, RUNTIME, TEAM, Kind
from commonplace_operator.resources.runtime_spec import RuntimeSpec
from commonplace_operator.resources.wire import ObjectRef, Wire


class InvalidObject(SpecError):
    """The object's shape is none that this version knows; the message names the fields."""


class Metadata(Wire):
    """What we read of `metadata`."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deletion_timestamp: datetime | None = None
    creation_timestamp: datetime | None = None


class RuntimeRef(Wire):
    """A MemoryRuntime, in the referrer's namespace unless said otherwise."""

    name: str
    namespace: str | None = None


class _Object(Wire):
    """What all four kinds share; `raw_spec` and `raw_status` are the wire's own words."""

    kind: Kind
    metadata: Metadata
    conditions: tuple[RecordedCondition, ...] = ()
    raw_spec: Mapping[str, Any] = Field(default_factory=dict)
    raw_status: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """`metadata.namespace`."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """`metadata.uid`."""
        return self.metadata.uid

    @property
    def generation(self) -> int:
        """`metadata.generation`: grows with each change of the spec."""
        return self.metadata.generation

    @property
    def is_deleting(self) -> bool:
        """Whether only finalizers keep the object."""
        return self.metadata.deletion_timestamp is not None

    def is_ready(self) -> bool:
        """Whether the recorded `Ready` is True."""
        return any(c.condition.type == "Ready" and c.condition.status == "True" for c in self.conditions)

    @classmethod
    def parse_body(cls, kind: Kind, body: Mapping[str, Any]) -> Self:
        """From the API server's JSON. Raises InvalidObject."""
        status = body.get("status") or {}
        spec = body.get("spec") or {}
        try:
            return cls.model_validate(
                {
                    "kind": kind,
                    "metadata": body["metadata"],
                    "conditions": tuple(RecordedCondition.parse(raw) for raw in status.get("conditions") or ()),
                    "raw_spec": spec,
                    "raw_status": status,
                    "spec": spec,
                }
            )
        except ValidationError as error:
            # Not the error's own text: it repeats the input.
            faults = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
            raise InvalidObject(faults) from error


class Unread(_Object):
    """An object whose spec is none that this version knows: enough of it to say so."""

    @classmethod
    def parse(cls, kind: Kind, body: Mapping[str, Any]) -> Self:
        """From the API server's JSON. Raises InvalidObject when not even the metadata can be read."""
        return cls.parse_body(kind, body)


class MemoryRuntime(_Object):
    """One installation of the runtime."""

    spec: RuntimeSpec

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """From the API server's JSON. Raises InvalidObject."""
        return cls.parse_body(RUNTIME, body)


class ProjectSpec(Wire):
    """One project of a team."""

    name: str
    display_name: str | None = None


class MemberSpec(Wire):
    """One member of a team."""

    actor: str
    role: str


class GenerationPolicy(Wire):
    """When captured events become memories."""

    mode: Literal["per-event", "debounce", "end-of-session"] = "per-event"
    window_seconds: int | None = None


class RetentionPolicy(Wire):
    """How long raw events stay; a duration such as `90d`."""

    events: str | None = None


class TeamPolicies(Wire):
    """Policies of a team."""

    generation: GenerationPolicy = GenerationPolicy()
    retention: RetentionPolicy = RetentionPolicy()
    default_visibility: Literal["team", "private"] | None = None


class TeamSpec(Wire):
    """`MemoryTeam.spec`."""

    runtime_ref: RuntimeRef
    display_name: str | None = None
    slug: str | None = None
    projects: tuple[ProjectSpec, ...] = ()
    members: tuple[MemberSpec, ...] = ()
    policies: TeamPolicies = TeamPolicies()
    isolation: Literal["Shared", "Dedicated"] = "Shared"
    deletion_policy: Literal["Retain", "Delete"] = "Retain"


class ProjectStatus(Wire):
    """One project as provisioned."""

    name: str
    id: str


class TeamStatus(Wire):
    """What others read of `MemoryTeam.status`."""

    team_id: str | None = None
    slug: str | None = None
    endpoint: str | None = None
    projects: tuple[ProjectStatus, ...] = ()


class MemoryTeam(_Object):
    """A tenant."""

    spec: TeamSpec

    @property
    def status(self) -> TeamStatus:
        """The recorded status."""
        return TeamStatus.model_validate(dict(self.raw_status))

    @property
    def runtime_namespace(self) -> str:
        """Where its MemoryRuntime lives."""
        return self.spec.runtime_ref.namespace or self.namespace

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """From the API server's JSON. Raises InvalidObject."""
        return cls.parse_body(TEAM, body)


class RotationSpec(Wire):
    """How often a key is replaced and how long the old one still works; durations."""

    interval: str
    grace_period: str | None = None


class SecretTemplate(Wire):
    """Labels and annotations for the Secret."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class KeySecretSpec(Wire):
    """The Secret of a key."""

    name: str | None = None
    formats: tuple[str, ...] = ()
    template: SecretTemplate = SecretTemplate()
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"


class ApiKeySpec(Wire):
    """`ApiKey.spec`."""

    team_ref: ObjectRef
    project: str | None = None
    actor: str | None = None
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    rotation: RotationSpec | None = None
    revoked: bool = False
    secret: KeySecretSpec = KeySecretSpec()


class ApiKey(_Object):
    """A credential of a team."""

    spec: ApiKeySpec

    @property
    def secret_name(self) -> str:
        """Name of the Secret that holds the token."""
        return self.spec.secret.name or self.name

    @property
    def actor(self) -> str:
        """Who acts when this key is used."""
        return self.spec.actor or f"key:{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """From the API server's JSON. Raises InvalidObject."""
        return cls.parse_body(API_KEY, body)


class HardLimits(Wire):
    """Limits that stop; a quantity is a number or a text such as `5Gi`."""

    requests_per_minute: int | str | None = None
    requests_per_month: int | str | None = None
    tokens_per_month: int | str | None = None
    cost_per_month_usd: int | float | str | None = Field(default=None, alias="costPerMonthUSD")
    memories: int | str | None = None
    storage: int | str | None = None
    api_keys: int | str | None = None
    workers: int | str | None = None


class SoftLimits(Wire):
    """Limits at which generation waits for the night."""

    tokens_per_month: int | str | None = None
    cost_per_month_usd: int | float | str | None = Field(default=None, alias="costPerMonthUSD")


class QuotaSpec(Wire):
    """`Quota.spec`."""

    team_ref: ObjectRef
    hard: HardLimits = HardLimits()
    soft: SoftLimits = SoftLimits()
    enforcement: Literal["Enforce", "Warn"] = "Enforce"


class Quota(_Object):
    """Limits of a team."""

    spec: QuotaSpec

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """From the API server's JSON. Raises InvalidObject."""
        return cls.parse_body(QUOTA, body)
