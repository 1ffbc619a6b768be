"""When a migration starts, is tried again, and lets the pods roll out."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from commonplace_operator.planning.migration import MigrationPlan, plan_migration, retry_seconds
from commonplace_operator.planning.workloads import MigrationJob
from commonplace_operator.resources.names import ANNOTATION_ALLOW_OLDER
from commonplace_operator.resources.reasons import Reason
from commonplace_runtime.contract import MigrationReason, MigrationReport
from tests.unit.operator.factories import NOW


def job(fingerprint: str, attempt: int, state: Any, report: MigrationReport | None = None, **more: Any) -> MigrationJob:
    values = {
        "ended_at": NOW if state == "failed" else None,
        "report": report,
        "note": "BackoffLimitExceeded",
        "created_at": NOW,
        "has_pod": True,
    } | more
    return MigrationJob(
        name=f"main-migrate-{fingerprint}-{attempt}",
        uid=f"{fingerprint}-{attempt}",
        fingerprint=fingerprint,
        attempt=attempt,
        state=state,
        **values,
    )


def failed_report(reason: MigrationReason, message: str = "said by the Job", sql: str = "") -> MigrationReport:
    return MigrationReport(outcome="failed", reason=reason, message=message, sql=sql)


def plan(*jobs: MigrationJob, fingerprint: str = "new", seconds: float = 0.0) -> MigrationPlan:
    return plan_migration(jobs, fingerprint=fingerprint, version="0.1.0", now=NOW + timedelta(seconds=seconds))


def test_the_first_try_begins_at_once() -> None:
    assert (plan().is_done, plan().start, plan().reason) == (False, 1, Reason.MIGRATION_PENDING)


def test_nothing_rolls_out_while_it_runs() -> None:
    found = plan(job("old", 1, "done"), job("new", 1, "running"))
    assert (found.is_done, found.start, found.delete) == (False, None, ())
    assert "main-migrate-new-1" in found.message


def test_a_job_that_gets_no_pod_is_told_of() -> None:
    stuck = job("new", 1, "running", has_pod=False)
    assert plan(stuck, seconds=5).reason is Reason.MIGRATION_PENDING
    told = plan(stuck, seconds=60)
    assert (told.reason, told.is_done, told.start) == (Reason.PODS_NOT_CREATED, False, None)
    assert "kubectl describe job main-migrate-new-1" in told.message
    assert plan(job("new", 1, "running"), seconds=60).reason is Reason.MIGRATION_PENDING


def test_success_rolls_out_and_forgets_all_others() -> None:
    others = (job("old", 1, "done"), job("other", 2, "failed"), job("new", 1, "failed"))
    found = plan(*others, job("new", 2, "done"))
    assert (found.is_done, found.start) == (True, None)
    assert set(found.delete) == set(others)


def test_going_back_to_what_is_done_rolls_out_at_once_and_stops_what_runs() -> None:
    running = job("new", 1, "running")
    found = plan(job("old", 1, "done"), running, fingerprint="old")
    assert (found.is_done, found.delete) == (True, (running,))


def test_one_migration_runs_at_a_time() -> None:
    running, done = job("other", 1, "running"), job("old", 1, "done")
    found = plan(done, running)
    assert (found.is_done, found.start, found.delete) == (False, None, (running,))
    assert found.look_again is not None
    assert plan(done).start == 1


def test_a_failed_try_is_repeated_after_a_pause_that_grows() -> None:
    failure = job("new", 3, "failed")
    early = plan(job("new", 2, "failed"), failure, seconds=30)
    assert (early.start, early.look_again, early.delete) == (None, 50, (job("new", 2, "failed"),))
    assert plan(failure, seconds=80).start == 4
    assert [retry_seconds(attempt) for attempt in (1, 2, 3, 6, 7, 1000)] == [20, 40, 80, 600, 600, 600]


def test_while_a_next_try_runs_it_is_still_said_why_the_last_one_failed() -> None:
    failure = job("new", 1, "failed", failed_report("DatabaseRefused", "password authentication failed"))
    found = plan(failure, job("new", 2, "running"))
    assert (found.is_done, found.reason, found.delete) == (False, Reason.DATABASE_REFUSED, ())
    assert "main-migrate-new-2" in found.message
    assert "password authentication failed" in found.message


@pytest.mark.parametrize(
    ("reason", "expected", "told"),
    [
        ("SchemaNewer", Reason.SCHEMA_NEWER, f"{ANNOTATION_ALLOW_OLDER} to 0.1.0"),
        ("DatabaseUnavailable", Reason.DATABASE_UNAVAILABLE, "tried again"),
        ("DatabaseRefused", Reason.DATABASE_REFUSED, "spec.database.ownerSecretRef"),
        ("MigrationFailed", Reason.MIGRATION_FAILED, "for version 0.1.0 failed"),
    ],
)
def test_each_failure_says_what_to_do_and_that_what_runs_stays(
    reason: MigrationReason, expected: Reason, told: str
) -> None:
    found = plan(job("new", 1, "failed", failed_report(reason)))
    assert found.reason is expected
    assert told in found.message
    assert "said by the Job" in found.message
    assert "What runs goes on running" in found.message


def test_missing_roles_come_with_the_sql_to_run() -> None:
    report = failed_report("DatabaseRolesMissing", "roles are missing", "CREATE ROLE commonplace_owner NOLOGIN;\n")
    found = plan(job("new", 1, "failed", report))
    assert found.reason is Reason.DATABASE_ROLES_MISSING
    assert found.message.endswith("run:\nCREATE ROLE commonplace_owner NOLOGIN;\n")


def test_a_job_that_left_no_report_points_to_its_log() -> None:
    found = plan(job("new", 1, "failed"))
    assert found.reason is Reason.MIGRATION_FAILED
    assert "BackoffLimitExceeded; kubectl logs job/main-migrate-new-1" in found.message


class Migrations(RuleBasedStateMachine):
    """Fingerprints change, Jobs end, are evicted and lost, time passes; the plan is carried out each time."""

    @initialize()
    def begin(self) -> None:
        self.jobs: dict[str, MigrationJob] = {}
        self.now = NOW
        self.wanted = "a"
        self.was_done: set[str] = set()
        self.done = False

    @rule(fingerprint=st.sampled_from(["a", "b", "c"]))
    def change(self, fingerprint: str) -> None:
        self.wanted = fingerprint

    @rule(seconds=st.sampled_from([1, 15, 45, 700]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(outcome=st.sampled_from(["done", "failed"]))
    def end(self, outcome: str) -> None:
        for name, known in self.jobs.items():
            if known.state == "running":
                self.jobs[name] = job(known.fingerprint, known.attempt, outcome, ended_at=self.now)
                if outcome == "done":
                    self.was_done.add(known.fingerprint)

    @rule()
    @precondition(lambda self: self.jobs)
    def lose_one(self) -> None:
        self.jobs.pop(min(self.jobs))

    @rule()
    def reconcile(self) -> None:
        found = plan_migration(tuple(self.jobs.values()), fingerprint=self.wanted, version="1", now=self.now)
        own = [known for known in self.jobs.values() if known.fingerprint == self.wanted]
        assert found.is_done == bool(own and max(own, key=lambda known: known.attempt).state == "done")
        assert not (found.is_done and found.start)
        if found.is_done:
            assert self.wanted in self.was_done
        elif found.start is None:
            assert found.look_again or any(known.state == "running" for known in own)
        for gone in found.delete:
            del self.jobs[gone.name]
        if found.start is not None:
            begun = job(self.wanted, found.start, "running")
            assert begun.name not in self.jobs
            self.jobs[begun.name] = begun

    @invariant()
    def at_most_one_runs(self) -> None:
        assert sum(known.state == "running" for known in self.jobs.values()) <= 1


TestMigrations = Migrations.TestCase
