# ruff: noqa: S105 - words about Secrets, not secrets
"""
Condition types and the closed list of reasons: public API that alerts and scripts match on.

A reason is never renamed; a new one may come. `Ready` is the first condition of every object.
Conditions of negative polarity (`NEGATIVE`) are listed only while they apply. While the database is
away `Ready` keeps what was last known for the same generation, and `DatabaseReachable=False` says
since when in its `lastTransitionTime`.
"""

from enum import StrEnum
from typing import Final


class ConditionType(StrEnum):
    """Every `type` that the operator writes."""

    READY = "Ready"
    DATABASE_REACHABLE = "DatabaseReachable"
    SCHEMA_CURRENT = "SchemaCurrent"
    API_AVAILABLE = "ApiAvailable"
    WORKERS_AVAILABLE = "WorkersAvailable"
    SCALING_ACTIVE = "ScalingActive"
    SCALING_CONFLICT = "ScalingConflict"
    TRIAL_ONLY = "TrialOnly"
    RUNTIME_ACCEPTED = "RuntimeAccepted"
    PROVISIONED = "Provisioned"
    ISSUED = "Issued"
    SECRET_SYNCED = "SecretSynced"
    EXPIRED = "Expired"
    REVOKED = "Revoked"
    EXCEEDED = "Exceeded"
    DELETION_BLOCKED = "DeletionBlocked"
    NOT_IMPLEMENTED = "NotImplemented"


NEGATIVE: Final = frozenset(
    {
        ConditionType.EXPIRED,
        ConditionType.REVOKED,
        ConditionType.EXCEEDED,
        ConditionType.DELETION_BLOCKED,
        ConditionType.NOT_IMPLEMENTED,
        ConditionType.SCALING_CONFLICT,
        ConditionType.TRIAL_ONLY,
    }
)


class Reason(StrEnum):
    """Every `reason` that the operator writes, with what it asks of the reader."""

    # All is well.
    AVAILABLE = "Available"
    PROVISIONED = "Provisioned"
    ACCEPTED = "Accepted"
    ISSUED = "Issued"
    ENFORCED = "Enforced"
    WARN_ONLY = "WarnOnly"
    REACHABLE = "Reachable"
    SCHEMA_CURRENT = "SchemaCurrent"
    SECRET_SYNCED = "SecretSynced"
    WITHIN_LIMITS = "WithinLimits"
    NEAR_LIMIT = "NearLimit"
    DESIRED_REPLICAS = "DesiredReplicas"
    MANUAL_REPLICAS = "ManualReplicas"
    EXTERNAL_AUTOSCALER = "ExternalAutoscaler"
    SCALED_TO_ZERO = "ScaledToZero"
    EMBEDDED_DATABASE = "EmbeddedDatabase"
    # The author of this object acts.
    RUNTIME_NOT_FOUND = "RuntimeNotFound"
    TEAM_NOT_FOUND = "TeamNotFound"
    PROJECT_NOT_FOUND = "ProjectNotFound"
    REF_NOT_PERMITTED = "RefNotPermitted"
    SLUG_CONFLICT = "SlugConflict"
    SECRET_CONFLICT = "SecretConflict"
    INVALID_SPEC = "InvalidSpec"
    EXPIRED = "Expired"
    REVOKED = "Revoked"
    OVER_LIMIT = "OverLimit"
    QUOTA_EXCEEDED = "QuotaExceeded"
    # Somebody who runs the platform acts.
    SECRET_NOT_FOUND = "SecretNotFound"
    DATABASE_REFUSED = "DatabaseRefused"
    MIGRATION_PENDING = "MigrationPending"
    MIGRATION_FAILED = "MigrationFailed"
    SCHEMA_NEWER = "SchemaNewer"
    DATABASE_ROLES_MISSING = "DatabaseRolesMissing"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    PODS_FAILING = "PodsFailing"
    PODS_NOT_CREATED = "PodsNotCreated"
    CHILD_CONFLICT = "ChildConflict"
    EXTERNAL_SCALER_FOUND = "ExternalScalerFound"
    SCALING_LIMITED = "ScalingLimited"
    FORBIDDEN = "Forbidden"
    NOT_IMPLEMENTED_YET = "NotImplementedYet"
    # Time acts.
    RUNTIME_NOT_READY = "RuntimeNotReady"
    TEAM_NOT_READY = "TeamNotReady"
    DATABASE_UNAVAILABLE = "DatabaseUnavailable"
    PROGRESSING = "Progressing"
    METRICS_UNAVAILABLE = "MetricsUnavailable"


class EventReason(StrEnum):
    """`reason` of the Events that the operator posts."""

    PROVISIONED = "Provisioned"
    ISSUED = "Issued"
    ROTATED = "Rotated"
    READOPTED = "Readopted"
    REVOKED = "Revoked"
    EXPIRED = "Expired"
    GRACE_CUT_SHORT = "GraceCutShort"
    SECRET_CONFLICT = "SecretConflict"
    SECRET_REPAIRED = "SecretRepaired"
    RELEASED = "Released"
    ABANDONED = "Abandoned"
    ROWS_LEFT = "RowsLeft"
    NOT_READY = "NotReady"
    MIGRATED = "Migrated"
    ROLLED_OUT = "RolledOut"
    SCALED = "Scaled"
    CREDENTIALS_MINTED = "CredentialsMinted"
