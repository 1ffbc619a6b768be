"""What the schemas refuse without a rule, fill in, describe and print; and that `kubectl` finds its way around them."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from commonplace_runtime.contract import SCOPES
from e2e.cluster.cache import ClusterError
from e2e.cluster.control_plane import ControlPlane
from tests.crds.wire import GROUP, KINDS, VERSION, Json, Wire, causes, crd, fields, new_object, schema

SHORT_NAMES: Final = {
    "memoryruntimes": ("memoryruntime", "mrt"),
    "memoryteams": ("memoryteam", "mteam"),
    "apikeys": ("apikey", "mkey"),
    "memoryquotas": ("memoryquota", "mquota"),
}
COLUMNS: Final = {
    "memoryruntimes": ["Version", "API", "Workers", "Backlog", "Teams", "Endpoint"],
    "memoryteams": ["Runtime", "Isolation", "Keys", "Slug", "Endpoint"],
    "apikeys": ["Team", "Secret", "Key ID", "Next Rotation", "Project", "Last Used"],
    "memoryquotas": ["Team", "Enforcement", "Exceeded", "Measured"],
}
CONDITION: Final[Json] = {
    "type": "Ready",
    "status": "True",
    "reason": "Available",
    "message": "All is well",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
UUID: Final = "0198c0de-0000-7000-8000-000000000000"
STATUSES: Final[dict[str, Json]] = {
    "memoryruntimes": {
        "version": "1.4.2",
        "schemaVersion": 4,
        "endpoint": "https://memory.example.com",
        "teams": 1,
        "api": {"replicas": 2, "readyReplicas": 2},
        "workers": {"replicas": 3, "readyReplicas": 3, "desiredReplicas": 3, "selector": "app=worker"},
        "queue": {"backlog": 57, "oldestSeconds": 4, "sampleTime": "2026-01-01T00:00:00Z"},
    },
    "memoryteams": {
        "teamId": UUID,
        "slug": "team-search.search",
        "endpoint": "https://memory.example.com",
        "projects": [{"name": "default", "id": UUID}],
        "keys": 1,
    },
    "apikeys": {
        "teamId": UUID,
        "project": "web",
        "keyId": "8dTQ0YJpXq2LkV1z",
        "secretName": "ci",
        "binding": {"name": "ci"},
        "revision": 2,
        "keys": [
            {"id": "a", "revision": 2, "state": "Active", "createdAt": "2026-01-01T00:00:00Z"},
            {"id": "b", "revision": 1, "state": "Grace", "expiresAt": "2026-01-02T00:00:00Z"},
        ],
        "nextRotationTime": "2026-12-20T05:00:00Z",
        "lastUsedTime": "2026-01-01T00:00:00Z",
    },
    "memoryquotas": {
        "teamId": UUID,
        "effective": {"tokensPerMonth": "5000000", "costPerMonthUSD": "49.90", "storage": 5368709120},
        "used": {"memories": 17, "requestsPerMonth": 1200, "tokensPerMonth": "1000"},
        "measuredAt": "2026-01-01T00:00:00Z",
    },
}

# kind, change of the minimal spec, the beginning of the server's words
REFUSED: Final[list[tuple[str, Json, str]]] = [
    ("memoryruntimes", {"database": None}, "spec.database: Required value"),
    ("memoryruntimes", {"management": "Half"}, 'Unsupported value: "Half"'),
    ("memoryruntimes", {"version": "latest"}, "spec.version in body should match"),
    ("memoryruntimes", {"image": {"digest": "sha256:abc"}}, "spec.image.digest in body should match"),
    ("memoryruntimes", {"image": {"repository": "Has Space"}}, "spec.image.repository in body should match"),
    ("memoryruntimes", {"image": {"pullPolicy": "Sometimes"}}, 'Unsupported value: "Sometimes"'),
    ("memoryruntimes", {"database": {"operatorSecretRef": {"key": "uri", "name": None}}}, "name: Required value"),
    ("memoryruntimes", {"provider": {"name": "parrot"}}, 'Unsupported value: "parrot"'),
    ("memoryruntimes", {"workers": {"replicas": -1}}, "greater than or equal to 0"),
    ("memoryruntimes", {"workers": {"concurrency": 0}}, "greater than or equal to 1"),
    ("memoryruntimes", {"workers": {"terminationGracePeriodSeconds": 3601}}, "less than or equal to 3600"),
    ("memoryruntimes", {"workers": {"autoscaling": {"mode": "Magic"}}}, 'Unsupported value: "Magic"'),
    ("memoryruntimes", {"workers": {"autoscaling": {"drainTargetSeconds": 0}}}, "greater than or equal to 1"),
    ("memoryruntimes", {"api": {"resources": {"limits": {"memory": "lots"}}}}, "should match"),
    ("memoryruntimes", {"allowedTeams": {"from": "Some"}}, 'Unsupported value: "Some"'),
    ("memoryruntimes", {"deletionPolicy": "Keep"}, 'Unsupported value: "Keep"'),
    ("memoryteams", {"runtimeRef": None}, "spec.runtimeRef: Required value"),
    ("memoryteams", {"runtimeRef": {"namespace": "Not_A_Namespace"}}, "spec.runtimeRef.namespace in body should match"),
    ("memoryteams", {"slug": "Upper"}, "spec.slug in body should match"),
    ("memoryteams", {"projects": [{"name": "web"}, {"name": "web"}]}, 'Duplicate value: {"name":"web"}'),
    ("memoryteams", {"projects": [{"name": ""}]}, "at least 1 chars long"),
    ("memoryteams", {"members": [{"actor": "human:ada"}, {"actor": "human:ada"}]}, "Duplicate value"),
    ("memoryteams", {"members": [{"actor": "human:ada", "role": "king"}]}, 'Unsupported value: "king"'),
    ("memoryteams", {"policies": {"generation": {"mode": "never"}}}, 'Unsupported value: "never"'),
    (
        "memoryteams",
        {"policies": {"generation": {"mode": "debounce", "windowSeconds": 86401}}},
        "less than or equal to 86400",
    ),
    ("memoryteams", {"policies": {"retention": {"events": "-90d"}}}, "should match"),
    ("memoryteams", {"policies": {"retention": {"events": "1.5d"}}}, "should match"),
    ("memoryteams", {"policies": {"defaultVisibility": "public"}}, 'Unsupported value: "public"'),
    ("memoryteams", {"isolation": "Alone"}, 'Unsupported value: "Alone"'),
    ("apikeys", {"teamRef": None}, "spec.teamRef: Required value"),
    ("apikeys", {"scopes": None}, "spec.scopes: Required value"),
    ("apikeys", {"scopes": []}, "should have at least 1 items"),
    ("apikeys", {"scopes": ["memories:write", "memories:write"]}, 'Duplicate value: "memories:write"'),
    ("apikeys", {"scopes": ["memories:burn"]}, 'Unsupported value: "memories:burn"'),
    ("apikeys", {"expiresAt": "tomorrow"}, "must be of type date-time"),
    ("apikeys", {"rotation": {"interval": "soon"}}, "must be of type duration"),
    ("apikeys", {"rotation": {"interval": "30 days"}}, "should match"),
    ("apikeys", {"rotation": {"gracePeriod": "1h"}}, "spec.rotation.interval: Required value"),
    ("apikeys", {"secret": {"name": "Not_A_Name"}}, "spec.secret.name in body should match"),
    ("apikeys", {"secret": {"formats": ["Yaml"]}}, 'Unsupported value: "Yaml"'),
    ("apikeys", {"secret": {"deletionPolicy": "Keep"}}, 'Unsupported value: "Keep"'),
    ("memoryquotas", {"teamRef": None}, "spec.teamRef: Required value"),
    ("memoryquotas", {"hard": {"costPerMonthUSD": -1}}, "greater than or equal to 0"),
    ("memoryquotas", {"hard": {"costPerMonthUSD": "much"}}, "must be of type number"),
    ("memoryquotas", {"hard": {"memories": 1.5}}, "must be of type integer"),
    ("memoryquotas", {"enforcement": "Beg"}, 'Unsupported value: "Beg"'),
]


@pytest.mark.parametrize(("plural", "change", "words"), REFUSED, ids=[f"{p}:{w}" for p, _, w in REFUSED])
def test_a_broken_field_is_refused_by_its_name(plural: str, change: Json, words: str, wire: Wire) -> None:
    status, answer = wire.try_create(plural, new_object(plural, change))
    assert status == 422, answer
    assert words in answer["message"]


def test_an_unknown_field_is_refused_by_name_when_asked_strictly(wire: Wire) -> None:
    status, answer = wire.try_create("apikeys", new_object("apikeys", {"scope": ["memories:read"]}))
    assert status == 400
    assert 'unknown field "spec.scope"' in answer["message"]


@pytest.mark.parametrize("plural", KINDS)
def test_every_field_has_a_description_that_a_reader_can_use(plural: str) -> None:
    bare = [
        path for path, node in fields(schema(plural)) if path != "metadata" and len(node.get("description", "")) < 8
    ]
    assert bare == []


@pytest.mark.parametrize("plural", KINDS)
def test_every_optional_setting_says_its_default(plural: str) -> None:
    selectors = {"selector", "matchLabels", "matchExpressions", "values"}
    silent = [
        f"{path}.{name}"
        for path, node in fields(schema(plural)["properties"]["spec"], "spec")
        for name, child in node.get("properties", {}).items()
        if name not in {*node.get("required", []), *selectors}
        and child.get("type") != "object"
        and "efault" not in child["description"]
    ]
    assert silent == []


def test_the_scopes_are_those_of_the_contract() -> None:
    assert tuple(schema("apikeys")["properties"]["spec"]["properties"]["scopes"]["items"]["enum"]) == SCOPES


@pytest.mark.parametrize("plural", KINDS)
def test_a_kind_is_namespaced_and_has_its_names_and_columns(plural: str) -> None:
    spec = crd(plural)["spec"]
    names = spec["names"]
    (version,) = spec["versions"]
    assert (spec["group"], spec["scope"], version["name"]) == (GROUP, "Namespaced", VERSION)
    assert (names["kind"], names["categories"]) == (KINDS[plural], ["memory"])
    assert (names["singular"], *names["shortNames"]) == SHORT_NAMES[plural]
    assert "status" in version["subresources"]
    columns = version["additionalPrinterColumns"]
    wanted = ["Ready", "Reason", *COLUMNS[plural], "Message", "Age"]
    assert [column["name"] for column in columns] == wanted
    assert [column["name"] for column in columns if column.get("priority") == 1][-1] == "Message"


def test_what_is_left_out_is_filled_in(wire: Wire) -> None:
    managed = {"management": None, "database": {"operatorSecretRef": None, "ownerSecretRef": {"name": "postgres"}}}
    runtime = wire.create("memoryruntimes", new_object("memoryruntimes", managed))["spec"]
    assert runtime["management"] == "Managed"
    assert runtime["workers"] == {"replicas": 1, "concurrency": 8, "terminationGracePeriodSeconds": 120}
    assert runtime["allowedTeams"] == {"from": "Same"}
    assert runtime["deletionPolicy"] == "Retain"
    assert runtime["database"]["ownerSecretRef"] == {"name": "postgres", "key": "uri"}
    assert "api" not in runtime
    team = wire.create("memoryteams", new_object("memoryteams", {"members": [{"actor": "human:ada"}]}))["spec"]
    assert (team["isolation"], team["deletionPolicy"]) == ("Shared", "Retain")
    assert team["members"] == [{"actor": "human:ada", "role": "member"}]
    key = wire.create("apikeys", new_object("apikeys", {"rotation": {"interval": "30d"}, "secret": {}}))["spec"]
    assert key["rotation"] == {"interval": "30d", "gracePeriod": "24h"}
    assert (key["revoked"], key["secret"]) == (False, {"deletionPolicy": "Delete"})
    quota = wire.create("memoryquotas", new_object("memoryquotas", {}))["spec"]
    assert quota["enforcement"] == "Enforce"


def test_autoscaling_is_filled_in_where_it_is_mentioned(wire: Wire) -> None:
    stored = wire.create("memoryruntimes", new_object("memoryruntimes", {"workers": {"autoscaling": {"mode": "HPA"}}}))
    assert stored["spec"]["workers"]["autoscaling"] == {
        "mode": "HPA",
        "minReplicas": 1,
        "maxReplicas": 10,
        "drainTargetSeconds": 60,
        "targetQueueAgeSeconds": 30,
        "scaleDownStabilizationSeconds": 300,
        "idleCooldownSeconds": 300,
    }


@pytest.mark.parametrize("plural", KINDS)
def test_the_whole_status_can_be_applied_and_the_spec_stays(plural: str, wire: Wire) -> None:
    stored = wire.create(plural, new_object(plural, {}))
    wanted = {"observedGeneration": 1, "conditions": [CONDITION], **STATUSES[plural]}
    status, answer = wire.apply_status(plural, stored["metadata"]["name"], wanted)
    assert status == 200, answer
    assert answer["status"] == wanted
    assert answer["spec"] == stored["spec"]
    assert answer["metadata"]["generation"] == 1


def test_a_condition_without_a_reason_is_refused(wire: Wire) -> None:
    stored = wire.create("apikeys", new_object("apikeys", {}))
    nameless = {name: value for name, value in CONDITION.items() if name != "reason"}
    status, answer = wire.apply_status("apikeys", stored["metadata"]["name"], {"conditions": [nameless]})
    assert status == 422
    assert causes(answer)[0][1] == "status.conditions[0].reason"


def test_a_third_living_token_is_refused(wire: Wire) -> None:
    stored = wire.create("apikeys", new_object("apikeys", {}))
    keys = [{"id": str(number), "revision": number, "state": "Active"} for number in range(3)]
    status, answer = wire.apply_status("apikeys", stored["metadata"]["name"], {"keys": keys})
    assert status == 422
    assert "must have at most 2 items" in answer["message"]


def test_the_scale_subresource_reads_and_writes_the_workers(wire: Wire, control_plane: ControlPlane) -> None:
    name = wire.create("memoryruntimes", new_object("memoryruntimes", {}))["metadata"]["name"]
    wire.apply_status("memoryruntimes", name, {"workers": {"replicas": 1, "selector": "app=worker"}})
    control_plane.run_kubectl("--namespace", wire.namespace, "scale", f"mrt/{name}", "--replicas=4")
    status, scale = wire.api.request("GET", f"{wire.path('memoryruntimes', name)}/scale")
    assert (status, scale["spec"]) == (200, {"replicas": 4})
    assert scale["status"] == {"replicas": 1, "selector": "app=worker"}
    _, runtime = wire.api.request("GET", wire.path("memoryruntimes", name))
    assert runtime["spec"]["workers"]["replicas"] == 4


def _table(printed: str) -> list[list[str]]:
    """Header and rows of each of kubectl's tables, split where at least two blanks stand."""
    return [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines() if line.strip()]


def test_get_memory_shows_all_kinds_with_their_columns(control_plane: ControlPlane, namespace: str) -> None:
    with control_plane.api() as api:
        wire = Wire(api=api, namespace=namespace)
        for plural in KINDS:
            wire.create(plural, new_object(plural, {}, name="a"))
            wire.apply_status(plural, "a", {"conditions": [CONDITION], **STATUSES[plural]})
    headers = [line for line in _table(control_plane.run_kubectl("get", "memory", "-A")) if line[0] == "NAMESPACE"]
    common = ["NAMESPACE", "NAME", "READY", "REASON"]
    assert sorted(headers) == sorted(
        [
            [*common, "TEAM", "SECRET", "KEY ID", "NEXT ROTATION", "AGE"],
            [*common, "TEAM", "ENFORCEMENT", "EXCEEDED", "MEASURED", "AGE"],
            [*common, "VERSION", "API", "WORKERS", "BACKLOG", "TEAMS", "AGE"],
            [*common, "RUNTIME", "ISOLATION", "KEYS", "AGE"],
        ]
    )
    rows = _table(control_plane.run_kubectl("--namespace", namespace, "get", "mkey", "-o", "wide"))
    assert rows[0][-2:] == ["MESSAGE", "AGE"]
    assert rows[1][:7] == ["a", "True", "Available", "search", "ci", "8dTQ0YJpXq2LkV1z", "2026-12-20T05:00:00Z"]
    assert "All is well" in rows[1]


def test_get_quota_still_means_resource_quota(control_plane: ControlPlane, namespace: str) -> None:
    with control_plane.api() as api:
        Wire(api=api, namespace=namespace).create("memoryquotas", new_object("memoryquotas", {}, name="ours"))
        status, answer = api.request(
            "POST",
            f"/api/v1/namespaces/{namespace}/resourcequotas",
            {"metadata": {"name": "theirs"}, "spec": {"hard": {"pods": "1"}}},
        )
        assert status == 201, answer
    for word in ("quota", "resourcequotas"):
        printed = control_plane.run_kubectl("--namespace", namespace, "get", word, "-o", "name")
        assert printed.strip() == "resourcequota/theirs"
    assert control_plane.run_kubectl("--namespace", namespace, "get", "mquota", "-o", "name").strip().endswith("/ours")


@pytest.mark.parametrize(
    ("plural", "selector", "change"),
    [
        (
            "memoryruntimes",
            "spec.management=Managed",
            {"management": "Managed", "database": {"operatorSecretRef": None, "embedded": True}},
        ),
        ("memoryteams", "spec.runtimeRef.name=other", {"runtimeRef": {"name": "other"}}),
        ("memoryteams", "spec.runtimeRef.namespace=far", {"runtimeRef": {"name": "prod", "namespace": "far"}}),
        ("memoryteams", "spec.isolation=Dedicated", {"isolation": "Dedicated"}),
        ("apikeys", "spec.teamRef.name=other", {"teamRef": {"name": "other"}}),
        ("memoryquotas", "spec.teamRef.name=other", {"teamRef": {"name": "other"}}),
    ],
)
def test_objects_are_found_by_what_they_refer_to(
    plural: str, selector: str, change: Json, control_plane: ControlPlane, namespace: str
) -> None:
    with control_plane.api() as api:
        wire = Wire(api=api, namespace=namespace)
        wire.create(plural, new_object(plural, {}, name="unlike"))
        wire.create(plural, new_object(plural, change, name="like"))
        _, found = api.request("GET", f"{wire.path(plural)}?fieldSelector={selector}")
    assert [item["metadata"]["name"] for item in found["items"]] == ["like"]


def test_a_refused_change_reads_like_the_api_servers_own(control_plane: ControlPlane, namespace: str) -> None:
    with control_plane.api() as api:
        Wire(api=api, namespace=namespace).create("apikeys", new_object("apikeys", {"revoked": True}, name="ci"))
    patch = json.dumps({"spec": {"revoked": False}})
    with pytest.raises(ClusterError) as refused:
        control_plane.run_kubectl("--namespace", namespace, "patch", "mkey", "ci", "--type=merge", f"--patch={patch}")
    assert str(refused.value).endswith(
        'The ApiKey "ci" is invalid: spec.revoked: Forbidden: a revoked key cannot be un-revoked: create a new ApiKey'
    )


def _described(node: Any, path: str, missing: list[str]) -> None:
    """Collect the properties of a published schema that carry no description."""
    for name, child in node.get("properties", {}).items():
        where = f"{path}.{name}"
        if not child.get("description") and name != "metadata":
            missing.append(where)
        if name != "metadata":
            _described(child, where, missing)
    if isinstance(node.get("items"), dict):
        _described(node["items"], f"{path}[]", missing)


@pytest.mark.parametrize("plural", KINDS)
def test_explain_describes_every_field(plural: str, control_plane: ControlPlane) -> None:
    with control_plane.api() as api:
        _, published = api.request("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")
    missing: list[str] = []
    _described(published["components"]["schemas"][f"dev.commonplace.{VERSION}.{KINDS[plural]}"], plural, missing)
    assert missing == []
    explained = control_plane.run_kubectl("explain", f"{SHORT_NAMES[plural][1]}.spec")
    assert "<empty>" not in explained
    assert "DESCRIPTION:" in explained


def test_the_crds_are_one_file_each_named_after_the_plural() -> None:
    folder = Path(__file__).resolve().parents[2] / "crds"
    assert {file.stem for file in folder.glob("*.yaml")} == set(KINDS)
    assert all(crd(plural)["metadata"]["name"] == f"{plural}.{GROUP}" for plural in KINDS)
