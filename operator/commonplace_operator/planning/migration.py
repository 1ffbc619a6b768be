"""What to do about the migration of a managed runtime: wait, start a Job, try again, or roll out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from commonplace_operator.planning.workloads import MigrationJob
from commonplace_operator.resources import names
from commonplace_operator.resources.reasons import Reason

RETRY_FIRST_SECONDS: Final = 20.0
RETRY_LIMIT_SECONDS: Final = 600.0
POD_SECONDS: Final = 30.0
"""How long a Job may be without a pod before that is worth a word."""
_REASONS: Final = {
    "DatabaseRolesMissing": Reason.DATABASE_ROLES_MISSING,
    "SchemaNewer": Reason.SCHEMA_NEWER,
    "DatabaseUnavailable": Reason.DATABASE_UNAVAILABLE,
    "DatabaseRefused": Reason.DATABASE_REFUSED,
}


@dataclass(frozen=True, kw_only=True)
class MigrationPlan:
    """
    is_done: pods of the new template may come. start: number of the try to begin, None for none. delete: Jobs that
    say nothing any more. reason, message: why it is not done. look_again: seconds until the next try.
    """

    is_done: bool
    start: int | None = None
    delete: tuple[MigrationJob, ...] = ()
    reason: Reason = Reason.MIGRATION_PENDING
    message: str = ""
    look_again: float | None = None


def retry_seconds(attempt: int) -> float:
    """Pause after failed try number `attempt`: 20 s doubling to 10 min."""
    return min(RETRY_LIMIT_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** min(attempt - 1, 10))


def plan_migration(jobs: Sequence[MigrationJob], *, fingerprint: str, version: str, now: datetime) -> MigrationPlan:
    """
    One Job for each fingerprint, tried until it succeeds.

    The last Job of the wanted fingerprint stays as the record, while a next try runs the failed one before it too;
    those of other fingerprints go once it succeeded.
    """
    ours = sorted((job for job in jobs if job.fingerprint == fingerprint), key=lambda job: job.attempt)
    if not ours:
        if busy := [job for job in jobs if job.state == "running"]:
            # It holds the lock anyway; two of them would only hide each other's report.
            return MigrationPlan(
                is_done=False, delete=tuple(busy), message=f"The migration for version {version} starts", look_again=2
            )
        return MigrationPlan(is_done=False, start=1, message=f"The migration for version {version} starts")
    newest, older = ours[-1], tuple(ours[:-1])
    match newest.state:
        case "done":
            others = tuple(job for job in jobs if job.fingerprint != fingerprint)
            return MigrationPlan(is_done=True, delete=(*others, *older))
        case "running":
            message = f"Job {newest.name} migrates the database for version {version}"
            if not newest.has_pod and (now - newest.created_at).total_seconds() > POD_SECONDS:
                return MigrationPlan(
                    is_done=False,
                    delete=older,
                    reason=Reason.PODS_NOT_CREATED,
                    message=f"Job {newest.name} gets no pod, for a quota or an admission policy maybe: "
                    f"kubectl describe job {newest.name} says why",
                )
            if not older:
                return MigrationPlan(is_done=False, message=message)
            # Until it is over nothing is known that is newer than why the last try failed.
            failed, forgotten = older[-1], older[:-1]
            reason = _reason(failed)
            message = f"{message}; before: {_failure(failed, reason, version)}"
            return MigrationPlan(is_done=False, message=message, reason=reason, delete=forgotten)
        case "failed":
            return _after_failure(newest, older, version=version, now=now)


def _after_failure(job: MigrationJob, older: tuple[MigrationJob, ...], *, version: str, now: datetime) -> MigrationPlan:
    reason = _reason(job)
    waited = (now - job.ended_at).total_seconds() if job.ended_at else 0.0
    left = retry_seconds(job.attempt) - waited
    is_due = left <= 0
    return MigrationPlan(
        is_done=False,
        start=job.attempt + 1 if is_due else None,
        delete=older,
        reason=reason,
        message=_failure(job, reason, version),
        look_again=None if is_due else max(1.0, left),
    )


def _reason(job: MigrationJob) -> Reason:
    return _REASONS.get(job.report.reason, Reason.MIGRATION_FAILED) if job.report else Reason.MIGRATION_FAILED


def _failure(job: MigrationJob, reason: Reason, version: str) -> str:
    report = job.report
    said = report.message.rstrip(".") if report else f"{job.note}; kubectl logs job/{job.name} says more"
    kept = "What runs goes on running. "
    match reason:
        case Reason.DATABASE_ROLES_MISSING:
            sql = f":\n{report.sql}" if report and report.sql else ""
            return f"{said}. Have an administrator of the database run{sql}"
        case Reason.SCHEMA_NEWER:
            return (
                f"{said}. {kept}Set spec.version to a newer one, or, to go back to {version} on purpose, set the "
                f"annotation {names.ANNOTATION_ALLOW_OLDER} to {version}"
            )
        case Reason.DATABASE_UNAVAILABLE | Reason.DATABASE_REFUSED:
            return f"{said}. {kept}Check the Secret of spec.database.ownerSecretRef and the database; tried again"
        case _:
            return f"The migration for version {version} failed: {said}. {kept}It is tried again"
