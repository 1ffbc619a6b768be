"""Runtimes, teams and quotas: references, slugs, policies, limits, deletion."""

import asyncio
import base64
import uuid

from tests.integration.operator.harness import OperatorProcess, World, until


async def test_a_runtime_publishes_its_address_and_counts_teams(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    await world.ready("MemoryTeam", "team")

    runtime = await world.ready("MemoryRuntime", "rt")

    assert runtime["status"]["endpoint"] == "https://memory.example.com"
    assert world.condition("MemoryRuntime", "rt", "DatabaseReachable")["status"] == "True"
    assert world.condition("MemoryRuntime", "rt", "SchemaCurrent")["status"] == "True"
    assert world.condition("MemoryRuntime", "rt", "NotImplemented") == {}


async def test_what_concerns_pods_is_somebody_elses_with_external_and_said_so(
    operator: OperatorProcess, world: World
) -> None:
    world.runtime(workers={"replicas": 3})

    await world.ready("MemoryRuntime", "rt")

    condition = world.condition("MemoryRuntime", "rt", "NotImplemented")
    assert condition["message"].endswith("spec.workers.replicas")


async def test_a_runtime_without_its_secret_says_so_and_heals(operator: OperatorProcess, world: World) -> None:
    world.runtime(database={"operatorSecretRef": {"name": "later"}})
    condition = await world.reason("MemoryRuntime", "rt", "SecretNotFound")
    assert condition["message"] == f"Secret {world.namespace}/later does not exist"

    uri = base64.b64encode(world.database.operator_url.encode()).decode()
    world.api.request("POST", world.path("Secret"), {"metadata": {"name": "later"}, "data": {"uri": uri}})

    await world.ready("MemoryRuntime", "rt")


async def test_a_database_without_our_schema_asks_for_a_migration(operator: OperatorProcess, world: World) -> None:
    await world.sql.execute("ALTER SCHEMA commonplace RENAME TO elsewhere")
    world.runtime()

    condition = await world.reason("MemoryRuntime", "rt", "MigrationPending")
    assert "commonplace migrate" in condition["message"]

    await world.sql.execute("ALTER SCHEMA elsewhere RENAME TO commonplace")
    await world.ready("MemoryRuntime", "rt")


async def test_a_broken_uri_is_named_and_not_shown(operator: OperatorProcess, world: World) -> None:
    broken = base64.b64encode(b"postgresql://user:hunter2@/db?port=x").decode()
    world.api.request("POST", world.path("Secret"), {"metadata": {"name": "bad"}, "data": {"uri": broken}})
    world.runtime(database={"operatorSecretRef": {"name": "bad"}})

    condition = await world.reason("MemoryRuntime", "rt", "DatabaseRefused")

    assert "hunter2" not in condition["message"]
    assert "hunter2" not in operator.log


async def test_a_team_gets_its_rows_projects_members_and_policies(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team(
        displayName="Search",
        projects=[{"name": "web", "displayName": "Web"}],
        members=[{"actor": "human:ada", "role": "owner"}, {"actor": "agent:ci"}],
        policies={"retention": {"events": "90d"}, "defaultVisibility": "private"},
    )

    status = (await world.ready("MemoryTeam", "team"))["status"]

    row = await world.sql.fetchrow("SELECT * FROM commonplace.teams WHERE id = $1", uuid.UUID(status["teamId"]))
    assert row is not None
    assert (row["slug"], row["name"]) == (f"{world.namespace}.team", "Search")
    assert (row["event_retention_seconds"], row["default_visibility"]) == (90 * 86400, "private")
    assert status["slug"] == row["slug"]
    assert [project["name"] for project in status["projects"]] == ["default", "web"]
    members = await world.sql.fetch("SELECT actor, role FROM commonplace.team_members ORDER BY actor")
    assert [tuple(member) for member in members] == [("agent:ci", "member"), ("human:ada", "owner")]


async def test_a_changed_generation_policy_arrives_in_the_row(operator: OperatorProcess, world: World) -> None:
    async def stored() -> tuple[str, int]:
        await world.ready("MemoryTeam", "team")
        row = await world.sql.fetchrow("SELECT generation_mode, generation_window_seconds FROM commonplace.teams")
        assert row is not None
        return row[0], row[1]

    world.runtime()
    world.team(policies={"generation": {"mode": "debounce", "windowSeconds": 5}})
    assert await stored() == ("debounce", 5)
    assert world.condition("MemoryTeam", "team", "NotImplemented") == {}

    ended = {"mode": "end-of-session", "windowSeconds": 7200}
    world.patch("MemoryTeam", "team", {"spec": {"policies": {"generation": ended}}})
    assert await stored() == ("end-of-session", 7200)

    world.patch("MemoryTeam", "team", {"spec": {"policies": {"generation": None}}})
    assert await stored() == ("per-event", 60)


async def test_what_is_not_acted_on_is_named(operator: OperatorProcess, world: World) -> None:
    world.runtime(provider={"name": "extractive"})
    world.team(isolation="Dedicated", policies={"retention": {"events": "90d"}})
    await world.ready("MemoryTeam", "team")

    team = world.condition("MemoryTeam", "team", "NotImplemented")
    runtime = world.condition("MemoryRuntime", "rt", "NotImplemented")

    assert team["message"].endswith(": spec.isolation, spec.policies.retention.events")
    assert runtime["message"].endswith(": spec.provider")


async def test_a_team_of_a_missing_runtime_says_so_and_heals(operator: OperatorProcess, world: World) -> None:
    world.team(runtimeRef={"name": "prdo"})
    await world.reason("MemoryTeam", "team", "RuntimeNotFound")
    assert world.condition("MemoryTeam", "team", "RuntimeAccepted")["status"] == "False"

    world.runtime("prdo")

    await world.ready("MemoryTeam", "team")


async def test_a_team_in_another_namespace_needs_its_runtimes_permission(
    operator: OperatorProcess, world: World
) -> None:
    world.runtime()
    other = f"{world.namespace}-b"
    world.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": other, "labels": {"tier": "gold"}}})
    world.create("MemoryTeam", "team", {"runtimeRef": {"name": "rt", "namespace": world.namespace}}, namespace=other)

    async def reason(wanted: str) -> None:
        await until(lambda: world.condition("MemoryTeam", "team", namespace=other).get("reason") == wanted, wanted)

    await reason("RefNotPermitted")
    assert await world.sql.fetchval("SELECT count(*) FROM commonplace.teams") == 0
    selector = {"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}}
    world.patch("MemoryRuntime", "rt", {"spec": {"allowedTeams": selector}})
    await reason("Provisioned")

    world.patch("MemoryRuntime", "rt", {"spec": {"allowedTeams": {"selector": {"matchLabels": {"tier": "iron"}}}}})
    await reason("RefNotPermitted")
    world.delete("MemoryTeam", "team", namespace=other)
    world.api.request("DELETE", f"/api/v1/namespaces/{other}")


async def test_two_teams_of_one_slug_conflict_and_the_second_deletes_nothing(
    operator: OperatorProcess, world: World
) -> None:
    world.runtime()
    world.team("one", slug="search")
    first = await world.ready("MemoryTeam", "one")
    world.team("two", slug="search", deletionPolicy="Delete")
    await world.reason("MemoryTeam", "two", "SlugConflict")

    world.delete("MemoryTeam", "two")
    await world.gone("MemoryTeam", "two")

    rows = await world.sql.fetch("SELECT id, detached_at FROM commonplace.teams")
    assert [(str(row["id"]), row["detached_at"]) for row in rows] == [(first["status"]["teamId"], None)]


async def test_a_retained_team_is_adopted_again_by_its_own_namespace(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key()
    first = await world.ready("MemoryTeam", "team")
    await world.ready("ApiKey", "key")
    token = (world.secret("key") or {})["token"]

    world.delete("MemoryTeam", "team")
    await world.gone("MemoryTeam", "team")
    await world.reason("ApiKey", "key", "TeamNotFound")
    assert not await world.works(token)

    world.team()
    again = await world.ready("MemoryTeam", "team")
    await world.ready("ApiKey", "key")
    assert again["status"]["teamId"] == first["status"]["teamId"]
    assert await world.works((world.secret("key") or {})["token"])


async def test_another_namespace_cannot_take_over_a_retained_team(operator: OperatorProcess, world: World) -> None:
    world.runtime(allowedTeams={"from": "All"})
    world.team(slug="search")
    await world.ready("MemoryTeam", "team")
    world.delete("MemoryTeam", "team")
    await world.gone("MemoryTeam", "team")
    other = f"{world.namespace}-c"
    world.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": other}})
    spec = {"runtimeRef": {"name": "rt", "namespace": world.namespace}, "slug": "search"}
    annotations = {"commonplace.dev/adopt": "true"}
    world.create("MemoryTeam", "thief", spec, namespace=other, annotations=annotations)

    await until(
        lambda: world.condition("MemoryTeam", "thief", namespace=other).get("reason") == "SlugConflict", "conflict"
    )

    assert await world.sql.fetchval("SELECT count(*) FROM commonplace.teams WHERE detached_at IS NOT NULL") == 1
    world.delete("MemoryTeam", "thief", namespace=other)
    world.api.request("DELETE", f"/api/v1/namespaces/{other}")


async def test_a_slug_made_by_people_is_adopted_on_request_only(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    by_people = uuid.uuid4()
    await world.sql.execute(
        "INSERT INTO commonplace.teams (id, slug, name) VALUES ($1, $2, 'old')", by_people, f"{world.namespace}.team"
    )
    world.team()
    await world.reason("MemoryTeam", "team", "SlugConflict")

    world.annotate("MemoryTeam", "team", adopt="true")

    team = await world.ready("MemoryTeam", "team")
    assert team["status"]["teamId"] == str(by_people)


async def test_deleting_a_team_can_delete_its_data(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team(deletionPolicy="Delete")
    await world.ready("MemoryTeam", "team")

    world.delete("MemoryTeam", "team")
    await world.gone("MemoryTeam", "team")

    assert await world.sql.fetchval("SELECT count(*) FROM commonplace.teams") == 0


async def test_a_quota_is_enforced_measured_and_released(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.create(
        "Quota",
        "quota",
        {
            "teamRef": {"name": "team"},
            "hard": {"storage": "5Gi", "memories": "100k", "apiKeys": 1, "costPerMonthUSD": 49.9},
            "soft": {"costPerMonthUSD": 40},
        },
    )
    quota = await world.ready("Quota", "quota")
    assert world.condition("Quota", "quota", "Exceeded")["reason"] == "WithinLimits"
    assert quota["status"]["effective"] == {
        "storage": str(5 * 2**30),
        "memories": "100000",
        "apiKeys": "1",
        "costPerMonthUSD": "49.9",
    }

    unenforced = world.condition("Quota", "quota", "NotImplemented")["message"]
    assert unenforced.endswith(": spec.hard.memories, spec.hard.storage")

    world.key()
    await world.ready("ApiKey", "key")
    await world.reason("Quota", "quota", "OverLimit", "Exceeded")
    world.key("second")
    await world.reason("ApiKey", "second", "QuotaExceeded")
    assert world.secret("second") is None

    world.delete("Quota", "quota")
    await world.gone("Quota", "quota")
    await world.ready("ApiKey", "second")


async def test_a_budget_is_shown_as_it_is_spent_and_a_raised_one_lets_generation_go_on(
    operator: OperatorProcess, world: World
) -> None:
    world.runtime()
    world.team()
    team_id = uuid.UUID((await world.ready("MemoryTeam", "team"))["status"]["teamId"])
    budget = {"hard": {"tokensPerMonth": "1k", "costPerMonthUSD": 2.5}, "soft": {"tokensPerMonth": 800}}
    world.create("Quota", "quota", {"teamRef": {"name": "team"}, **budget})
    await world.ready("Quota", "quota")
    assert world.condition("Quota", "quota")["reason"] == "Enforced"
    assert world.condition("Quota", "quota", "NotImplemented") == {}

    async def spend(kind: str, quantity: int) -> None:
        await world.sql.execute(
            """INSERT INTO commonplace.usage_counters (team_id, month, kind, quantity, shard)
               VALUES ($1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, $2, $3, 0)
               ON CONFLICT (team_id, month, kind, project_id, key_id, model, shard)
                   DO UPDATE SET quantity = excluded.quantity""",
            team_id,
            kind,
            quantity,
        )

    await spend("cost_microusd", 1_250_000)
    await spend("tokens", 800)
    near = await world.reason("Quota", "quota", "NearLimit", "Exceeded")
    assert near["message"].startswith("Over the soft limit: tokensPerMonth. Generation waits for 02:00 to 06:00 UTC")
    used = ((world.get("Quota", "quota") or {})["status"])["used"]
    assert (used["tokensPerMonth"], used["costPerMonthUSD"]) == ("800", "1.25")

    await spend("tokens", 1000)
    await world.sql.execute(
        """INSERT INTO commonplace.team_holds (team_id, held_until, reason)
           VALUES ($1, now() + interval '9 days', 'tokens')""",
        team_id,
    )
    over = await world.reason("Quota", "quota", "OverLimit", "Exceeded")
    assert over["message"].startswith("Used up: tokensPerMonth. Generation stops until the month ends (UTC)")

    world.patch("Quota", "quota", {"spec": {"hard": {"tokensPerMonth": "1M"}, "soft": {"tokensPerMonth": "900k"}}})
    await world.reason("Quota", "quota", "WithinLimits", "Exceeded")
    assert await world.sql.fetchval("SELECT count(*) FROM commonplace.team_holds") == 0


async def test_a_quota_of_a_missing_team_says_so(operator: OperatorProcess, world: World) -> None:
    world.create("Quota", "quota", {"teamRef": {"name": "nobody"}, "hard": {"apiKeys": 1}, "enforcement": "Warn"})

    await world.reason("Quota", "quota", "TeamNotFound")

    world.delete("Quota", "quota")
    await world.gone("Quota", "quota")


async def test_a_database_that_is_away_leaves_ready_as_it_was_and_blocks_deletion(
    operator: OperatorProcess, world: World
) -> None:
    world.runtime()
    world.team()
    world.key()
    await world.ready("ApiKey", "key")
    world.point_runtime_at("postgresql://operator@127.0.0.1:1/nowhere")

    world.annotate("ApiKey", "key", look="now")
    await world.reason("ApiKey", "key", "DatabaseUnavailable", "DatabaseReachable")
    assert world.condition("ApiKey", "key")["status"] == "True"

    world.delete("ApiKey", "key")
    condition = await world.reason("ApiKey", "key", "DatabaseUnavailable", "DeletionBlocked")
    assert "commonplace.dev/abandon=key" in condition["message"]
    world.key("fresh")
    await world.reason("ApiKey", "fresh", "DatabaseUnavailable")

    world.annotate("ApiKey", "key", abandon="key")
    await world.gone("ApiKey", "key")
    world.point_runtime_at(world.database.operator_url)
    await world.ready("ApiKey", "fresh")
    assert world.condition("ApiKey", "fresh", "DatabaseReachable") == {}


async def test_a_finalizer_does_not_outlive_the_runtime(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key()
    await world.ready("ApiKey", "key")

    world.delete("MemoryRuntime", "rt")
    await world.gone("MemoryRuntime", "rt")
    world.delete("MemoryTeam", "team")
    await world.gone("MemoryTeam", "team")
    world.delete("ApiKey", "key")
    await world.gone("ApiKey", "key")

    # This process had met the database, so even then every key was revoked.
    states = [row["state"] for row in await world.sql.fetch("SELECT state FROM commonplace.api_keys")]
    assert states == ["revoked"]


async def test_a_whole_namespace_goes(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key()
    await world.ready("ApiKey", "key")

    world.api.request("DELETE", f"/api/v1/namespaces/{world.namespace}")

    await until(
        lambda: world.api.request("GET", f"/api/v1/namespaces/{world.namespace}")[0] == 404, "namespace gone", 60
    )
    assert [row["state"] for row in await world.sql.fetch("SELECT state FROM commonplace.api_keys")] == ["revoked"]


async def test_an_operator_that_comes_back_writes_nothing(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.create("Quota", "quota", {"teamRef": {"name": "team"}, "hard": {"apiKeys": 9}})
    world.key()
    await world.ready("ApiKey", "key")
    await world.ready("Quota", "quota")
    await until(lambda: (world.get("MemoryTeam", "team") or {})["status"].get("keys") == 1, "the key counted")

    objects = [
        ("MemoryRuntime", "rt"),
        ("MemoryTeam", "team"),
        ("Quota", "quota"),
        ("ApiKey", "key"),
        ("Secret", "key"),
    ]

    def versions() -> list[str]:
        return [(world.get(kind, name) or {})["metadata"]["resourceVersion"] for kind, name in objects]

    async def settled() -> list[str] | None:
        before = versions()
        await asyncio.sleep(1)
        return before if versions() == before else None

    before = await until(settled, "nothing written for a second")
    operator.restart()
    await until(lambda: operator.log.count('"watching"') >= 2, "the second start")
    await until(lambda: "reconciled" in operator.log.rsplit('"watching"', 1)[1] and settled(), "settled again")
    assert versions() == before
