"""Every environment variable of the operator, checked together at start."""

import socket
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX: Final = "COMMONPLACE_OPERATOR_"
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_NAMESPACE: Final = "commonplace-system"


class SettingsError(Exception):
    """The environment is unusable; the message has one line for each fault."""


class Settings(BaseSettings):
    """
    The operator's settings, each as `COMMONPLACE_OPERATOR_<NAME>`.

    Besides these the standard `KUBECONFIG` is honoured; in a pod the service account is used.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    namespace: str = Field(
        default="",
        description="Namespace of the operator's own Secret and Lease; empty: the pod's, else commonplace-system.",
    )
    watch_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Comma-separated namespaces to serve; empty: all."
    )
    operator_class: str = Field(
        default="default",
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        description="Serves the objects whose annotation commonplace.dev/operator-class says so; without one: default.",
    )
    runtime_image: str = Field(
        default="commonplace/runtime", description="Repository of the image of managed runtimes that name none."
    )
    host: str = Field(default="127.0.0.1", description="Address of health and metrics; 0.0.0.0 in a pod.")
    port: int = Field(default=8780, ge=0, le=65535, description="Port of health and metrics; 0: any free one.")
    workers: int = Field(default=16, ge=1, le=128, description="Objects reconciled at once.")
    log_format: Literal["json", "console"] = Field(default="json", description="One JSON object a line, or for people.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    cluster_timeout_seconds: float = Field(default=15.0, gt=0, le=120, description="Longest Kubernetes API call.")
    database_connect_timeout_seconds: float = Field(default=5.0, gt=0, le=60, description="Longest dialling.")
    database_statement_timeout_seconds: float = Field(default=10.0, gt=0, le=120, description="Longest SQL call.")
    quota_refresh_seconds: float = Field(default=300.0, ge=1, description="How often a Quota's usage is measured.")
    resync_seconds: float = Field(
        default=600.0, ge=10, description="How often a settled ApiKey and MemoryRuntime is looked at again."
    )
    scaling_seconds: float = Field(
        default=5.0, ge=0.5, le=300, description="How often the queue of a runtime that this operator scales is seen."
    )
    scaling_workers: int = Field(default=4, ge=1, le=64, description="Runtimes whose queues are seen at once.")
    shutdown_seconds: float = Field(default=2.0, ge=0, le=60, description="Time for running work after SIGTERM.")

    leader_election: bool = Field(
        default=True, description="Lead by a Lease, with others as standbys; false only where one process runs alone."
    )
    lease_duration_seconds: int = Field(
        default=15, ge=1, le=3600, description="How long a standby waits for a leader that is silent."
    )
    renew_deadline_seconds: float = Field(
        default=10.0, gt=0, description="A leader that has not renewed the Lease for so long ends."
    )
    lease_retry_seconds: float = Field(default=2.0, gt=0, description="How often a leader renews the Lease.")

    @model_validator(mode="after")
    def _lease_times_are_in_order(self) -> Self:
        if not self.lease_retry_seconds < self.renew_deadline_seconds < self.lease_duration_seconds:
            raise ValueError(
                f"{PREFIX}LEASE_RETRY_SECONDS ({self.lease_retry_seconds:g}) has to be less than "
                f"{PREFIX}RENEW_DEADLINE_SECONDS ({self.renew_deadline_seconds:g}), and that less than "
                f"{PREFIX}LEASE_DURATION_SECONDS ({self.lease_duration_seconds})"
            )
        return self

    @field_validator("watch_namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def own_namespace(self) -> str:
        """Where the operator keeps its own Secret and its Lease."""
        if self.namespace:
            return self.namespace
        try:
            return _POD_NAMESPACE.read_text().strip() or DEFAULT_NAMESPACE
        except OSError:
            return DEFAULT_NAMESPACE

    @property
    def instance(self) -> str:
        """Name of this process in Events."""
        return socket.gethostname()

    @classmethod
    def from_environment(cls) -> Self:
        """Read and check all. Raises SettingsError with every fault at once."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(_line(fault["loc"], fault["msg"]) for fault in error.errors())) from error


def _line(where: tuple[int | str, ...], message: str) -> str:
    # What several settings are wrong together about names them itself.
    return f"{PREFIX}{'_'.join(map(str, where)).upper()}: {message}" if where else message
