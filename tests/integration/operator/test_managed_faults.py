"""What goes wrong around a managed MemoryRuntime: it says what to do, and heals by itself."""

from typing import Any

import pytest

from commonplace_runtime import contract
from commonplace_runtime.contract import MigrationReason, MigrationReport
from tests.integration.operator.harness import until
from tests.integration.operator.kubelet import ManagedWorld, PasswordServer

FAILURES: dict[MigrationReason, tuple[str, str]] = {
    "DatabaseRolesMissing": ("DatabaseRolesMissing", "CREATE ROLE commonplace_owner"),
    "MigrationFailed": ("MigrationFailed", "for version"),
    "SchemaNewer": ("SchemaNewer", "commonplace.dev/allow-older-version"),
    "DatabaseUnavailable": ("DatabaseUnavailable", "spec.database.ownerSecretRef"),
    "DatabaseRefused": ("DatabaseRefused", "spec.database.ownerSecretRef"),
}


@pytest.mark.parametrize("reason", FAILURES)
async def test_each_failure_of_a_migration_is_told_with_what_to_do(
    managed_world: ManagedWorld, reason: MigrationReason
) -> None:
    world = managed_world
    world.managed()
    sql = "CREATE ROLE commonplace_owner NOLOGIN;\n" if reason == "DatabaseRolesMissing" else ""
    await world.fail_job(MigrationReport(outcome="failed", reason=reason, message="as the Job says", sql=sql))

    expected, told = FAILURES[reason]
    condition = await world.reason("MemoryRuntime", "main", expected)

    assert "as the Job says" in condition["message"]
    assert told in condition["message"]
    assert world.names("Deployment") == []
    assert world.condition("MemoryRuntime", "main", "SchemaCurrent") == {}


async def test_a_failed_migration_is_tried_again_and_its_reason_stays_meanwhile(managed_world: ManagedWorld) -> None:
    world = managed_world
    world.managed()
    away = MigrationReport(outcome="failed", reason="DatabaseUnavailable", message="no answer")
    first = await world.fail_job(away)
    await world.reason("MemoryRuntime", "main", "DatabaseUnavailable")

    second = await until(lambda: world.running_job(), "the next try", 60)

    name = second["metadata"]["name"]
    assert (first[-2:], name) == ("-1", f"{first[:-1]}2")
    await until(lambda: name in world.condition("MemoryRuntime", "main")["message"], "the try is told")
    condition = world.condition("MemoryRuntime", "main")
    assert condition["reason"] == "DatabaseUnavailable"
    assert "no answer" in condition["message"]
    await world.run_migration(second)
    await world.settled()
    assert world.names("Job") == [name]


async def test_a_job_that_died_without_a_report_points_to_its_log(managed_world: ManagedWorld) -> None:
    world = managed_world
    world.managed()
    job = await world.job()
    await world.end_job(job, code=137, message="")
    condition = await world.reason("MemoryRuntime", "main", "MigrationFailed")
    assert f"kubectl logs job/{job['metadata']['name']}" in condition["message"]


async def test_a_secret_that_comes_later_is_found(managed_world: ManagedWorld) -> None:
    world = managed_world
    world.create("MemoryRuntime", "main", {"database": {"ownerSecretRef": {"name": "later"}}})
    condition = await world.reason("MemoryRuntime", "main", "SecretNotFound")
    assert condition["message"] == (
        f"Secret {world.namespace}/later (spec.database.ownerSecretRef) does not exist: create it"
    )
    assert world.names("Secret") == world.names("Job") == []

    world.put_secret("later", url=world.owner_uri)
    await until(
        lambda: "has no key uri; it has: url" in world.condition("MemoryRuntime", "main")["message"], "the other fault"
    )
    world.put_secret("later", uri="postgresql://app:hunter2/x@db/memory")
    condition = await world.reason("MemoryRuntime", "main", "DatabaseRefused")
    assert "percent-encoded" in condition["message"]
    assert "hunter2" not in str(world.get("MemoryRuntime", "main"))

    world.put_secret("later", uri=world.owner_uri)
    await until(lambda: world.names("Job"), "the migration", 70)


async def test_a_secret_that_went_holds_the_rollout_and_not_what_runs(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    before = world.template("api")
    world.delete("Secret", "main-owner")
    world.patch("MemoryRuntime", "main", {"spec": {"image": {"tag": "next"}}})

    await world.reason("MemoryRuntime", "main", "SecretNotFound")

    assert world.template("api") == before
    assert world.condition("MemoryRuntime", "main", "ApiAvailable")["status"] == "True"
    assert world.condition("MemoryRuntime", "main", "SchemaCurrent")["status"] == "True"


async def test_a_wrong_password_of_the_owner_is_told_by_the_job_and_healed_by_the_secret(
    managed_world: ManagedWorld, password_server: PasswordServer
) -> None:
    world = managed_world
    right = world.owner_uri
    world.owner_uri = password_server.url(world.database.name, password="wrong")
    world.managed()
    first = await world.job()
    failed = first["metadata"]["labels"]["commonplace.dev/migration"]
    report = await world.run_migration(first)
    assert report.reason == "DatabaseRefused"
    condition = await world.reason("MemoryRuntime", "main", "DatabaseRefused")
    assert "password authentication failed" in condition["message"]
    assert ":wrong@" not in str(world.get("MemoryRuntime", "main"))

    world.put_secret("main-owner", uri=right)
    # Other credentials are another migration, so no pause after the failed one is waited for.
    job = await until(lambda: world.running_job(other_than=failed), "the migration with the new password", 70)
    assert (await world.run_migration(job)).outcome == "migrated"
    await world.settled()


async def test_an_owner_who_may_not_make_roles_is_told_the_sql(
    managed_world: ManagedWorld, password_server: PasswordServer
) -> None:
    world = managed_world
    world.owner_uri = password_server.url(world.database.name, user="powerless", password="powerless")
    world.managed()
    report = await world.run_migration()
    assert report.reason == "DatabaseRolesMissing", report
    condition = await world.reason("MemoryRuntime", "main", "DatabaseRolesMissing")
    assert "Have an administrator of the database run:\n" in condition["message"]
    assert "powerless" in condition["message"]
    minted = world.secret("main-database") or {}
    assert minted["runtime-password"] not in condition["message"]


async def test_a_changed_image_waits_for_its_migration_while_the_old_one_runs(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    before = world.template("api"), world.template("worker")

    world.patch("MemoryRuntime", "main", {"spec": {"image": {"tag": "next"}}})
    job = await world.job()

    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "commonplace/runtime:next"
    await world.reason("MemoryRuntime", "main", "MigrationPending")
    assert (world.template("api"), world.template("worker")) == before
    assert world.condition("MemoryRuntime", "main", "ApiAvailable")["status"] == "True"
    await world.run_migration(job)
    await world.settled()
    assert world.template("api")["spec"]["containers"][0]["image"] == "commonplace/runtime:next"
    assert world.names("Job") == [job["metadata"]["name"]]


async def test_an_image_that_cannot_be_pulled_is_told_and_the_old_pods_serve(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    world.patch("MemoryRuntime", "main", {"spec": {"image": {"tag": "next"}}})
    await world.run_migration()

    def new_pod() -> dict[str, Any] | None:
        pods = world.find("Pod", component="api")
        return next((p for p in pods if p["spec"]["containers"][0]["image"].endswith(":next")), None)

    pod = await until(new_pod, "the pod of the new template")
    wrong = {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
    world.pod_status(pod, phase="Pending", state=wrong, is_ready=False)

    condition = await world.reason("MemoryRuntime", "main", "ImagePullFailed")

    assert "commonplace/runtime:next cannot be pulled" in condition["message"]
    assert (world.get("Deployment", "main-api") or {})["status"]["availableReplicas"] == 1
    assert world.condition("MemoryRuntime", "main", "SchemaCurrent")["status"] == "True"


async def test_a_deleted_credentials_secret_is_minted_anew_and_migrated_before_pods_restart(
    managed_world: ManagedWorld,
) -> None:
    world = managed_world
    await world.installed()
    old, before = world.secret("main-database") or {}, world.template("api")

    world.delete("Secret", "main-database")
    job = await world.job()

    new = world.secret("main-database") or {}
    assert new["runtime-password"] != old["runtime-password"]
    assert world.template("api") == before
    report = await world.run_migration(job)
    assert report.outcome == "migrated", report
    await world.settled()
    assert world.template("api") != before
    [container] = world.template("api")["spec"]["containers"]
    assert world.environment_of(container)[contract.ENV_DATABASE_URL] == new["runtime-uri"]


async def test_a_database_that_was_replaced_under_its_name_is_given_its_roles_again(
    managed_world: ManagedWorld, password_server: PasswordServer
) -> None:
    world = managed_world
    await world.installed()
    minted = (world.secret("main-database") or {})["operator-uri"]
    role = minted.partition("//")[2].partition(":")[0]
    async with password_server.superuser() as connection:
        await connection.execute(f"ALTER ROLE {role} PASSWORD 'as in the backup'")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
    await world.reason("MemoryRuntime", "main", "DatabaseRefused")

    job = await until(lambda: world.running_job(), "the migration runs again", 60)

    assert world.names("Deployment") == ["main-api", "main-worker"]
    assert (await world.run_migration(job)).outcome == "migrated"
    await world.settled()


async def test_an_older_backup_is_migrated_again(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    await world.sql.execute("DELETE FROM commonplace.schema_migrations WHERE version = $1", contract.SCHEMA_VERSION)
    job = await until(lambda: world.running_job(), "the migration runs again", 60)
    await until(
        lambda: (world.get("MemoryRuntime", "main") or {})["status"]["schemaVersion"] < contract.SCHEMA_VERSION,
        "the older schema is told",
    )
    await world.sql.execute(
        "INSERT INTO commonplace.schema_migrations (version, name, checksum) VALUES ($1, 'x', 'x')",
        contract.SCHEMA_VERSION,
    )
    await world.end_job(job, code=0, message="")
    await world.settled()


async def test_a_quota_that_forbids_a_child_is_told_with_what_is_known(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    status, answer = world.api.request(
        "POST",
        f"/api/v1/namespaces/{world.namespace}/resourcequotas",
        {"metadata": {"name": "none"}, "spec": {"hard": {"count/ingresses.networking.k8s.io": "0"}}},
    )
    assert status == 201, answer
    quota = f"/api/v1/namespaces/{world.namespace}/resourcequotas/none"
    await until(lambda: world.api.request("GET", quota)[1]["status"].get("used"), "the quota is counted")

    world.patch("MemoryRuntime", "main", {"spec": {"ingress": {"host": "memory.example.com"}}})
    condition = await world.reason("MemoryRuntime", "main", "Forbidden")

    assert "exceeded quota" in condition["message"]
    assert world.condition("MemoryRuntime", "main", "SchemaCurrent")["status"] == "True"
    world.api.request("DELETE", quota)
    await world.settled()
    assert world.names("Ingress") == ["main-api"]
