"""The operator's chart as Helm renders it: values, names, rights, and the messages for wrong values. No server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import generate
from commonplace_operator.settings import PREFIX, Settings
from commonplace_runtime import contract
from tests.charts import helm
from tests.charts.helm import OPERATOR, TENANCY, Json

NAMESPACED = {"rbac.scope": "Namespaced", "watchNamespaces": ["team-a", "team-b"]}


def rendered(*files: Path, **options: Any) -> list[Json]:
    return helm.documents(helm.template(OPERATOR, *files, **options))


def refusal(chart: Path, values: dict[str, Any]) -> str:
    with pytest.raises(helm.HelmFailed) as failed:
        helm.template(chart, values=values)
    return str(failed.value)


def schema(chart: Path) -> Json:
    loaded: Json = json.loads((chart / "values.schema.json").read_text())
    return loaded


def parts(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from parts(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from parts(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from parts(node["additionalProperties"], f"{path}{{}}")


def described() -> dict[str, str]:
    """The comment `# -- …` of each value, by path."""
    found: dict[str, str] = {}
    path: list[str] = []
    words: list[str] = []
    for line in (OPERATOR / "values.yaml").read_text().splitlines():
        text = line.strip()
        key = re.match(r"( *)(\w+):", line)
        if text.startswith("# -- "):
            words = [text[5:]]
        elif text.startswith("# ") and words:
            words.append(text[2:])
        elif key:
            path = [*path[: len(key[1]) // 2], key[2]]
            if words:
                found[".".join(path)] = " ".join(words)
            words = []
    return found


# --- files that stand twice


def test_the_generated_files_are_those_of_the_crds() -> None:
    outdated = [
        str(file.relative_to(generate.REPOSITORY))
        for file, content in generate.wanted_files().items()
        if not file.exists() or file.read_text() != content
    ]
    assert outdated == [], "run: .venv/bin/python -m charts.generate"
    assert {file.name for file in generate.CRDS_OF_CHART.iterdir()} == {file.name for file in generate.CRDS.iterdir()}


@pytest.mark.parametrize("chart", [OPERATOR, TENANCY], ids=lambda chart: chart.name)
def test_the_charts_carry_the_version_of_the_program(chart: Path) -> None:
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert about["appVersion"] == contract.VERSION


def test_the_crds_are_rendered_unchanged_but_for_the_mark_that_keeps_them() -> None:
    shown = {crd["metadata"]["name"]: crd for crd in helm.of_kind(rendered(), "CustomResourceDefinition")}
    sources = [yaml.safe_load(file.read_text()) for file in sorted(generate.CRDS.glob("*.yaml"))]

    assert len(shown) == len(sources) == 4
    for source in sources:
        crd = shown[source["metadata"]["name"]]
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert crd == source


def test_the_crds_can_be_left_out() -> None:
    assert helm.of_kind(rendered(values={"crds.install": False}), "CustomResourceDefinition") == []


# --- values


@pytest.mark.parametrize("chart", [OPERATOR, TENANCY], ids=lambda chart: chart.name)
def test_helm_lint_finds_nothing(chart: Path) -> None:
    files = helm.VARIANTS if chart == OPERATOR else helm.EXAMPLES
    assert files
    for file in files:
        helm.run("lint", "--strict", chart, "--values", file)


@pytest.mark.parametrize("chart", [OPERATOR, TENANCY], ids=lambda chart: chart.name)
def test_every_object_of_the_schema_is_closed_and_everything_is_described(chart: Path) -> None:
    closed_elsewhere = re.compile(  # Kubernetes' own types: the API server knows their fields
        r"^global$|^affinity\.\w+$|^(networkPolicy\.|topologySpreadConstraints|resources\.claims).*(\[\]|Selector|ipBlock)$"
        r"|\.valueFrom\.(fieldRef|resourceFieldRef|fileKeyRef)$"
    )
    found = list(parts(schema(chart)))
    open_objects = [
        path
        for path, node in found
        if "object" in str(node.get("type"))
        and "additionalProperties" not in node
        and not closed_elsewhere.search(path)
    ]
    assert open_objects == []
    assert [path for path, node in found if path and not node.get("description")] == []


def test_schema_and_values_say_the_same() -> None:
    fields = {path: node for path, node in parts(schema(OPERATOR)) if path}
    comments = described()
    assert len(comments) > 50
    assert {path: fields[path]["description"] for path in comments} == comments

    def keys(values: Json, path: str = "") -> Iterator[str]:
        for name, value in values.items():
            here = f"{path}.{name}" if path else name
            deeper = isinstance(value, dict) and value and here not in comments
            yield from keys(value, here) if deeper else (here,)

    defaults = yaml.safe_load((OPERATOR / "values.yaml").read_text())
    assert set(keys(defaults)) - set(comments) == set()


@pytest.mark.parametrize(
    ("chart", "values", "message"),
    [
        (OPERATOR, {"replica": 3}, "Additional property replica is not allowed"),
        (OPERATOR, {"image.regsitry": "x"}, "image: Additional property regsitry is not allowed"),
        (OPERATOR, {"replicas": "two"}, "replicas: Invalid type. Expected: integer, given: string"),
        (OPERATOR, {"rbac.scope": "Namespace"}, "rbac.scope"),
        (OPERATOR, {"tolerations": [{"keys": "x"}]}, "tolerations.0: Additional property keys is not allowed"),
        (OPERATOR, {"rbac.scope": "Namespaced"}, "needs watchNamespaces: name the namespaces to serve"),
        (OPERATOR, {"leaderElection.enabled": False}, "leaderElection.enabled false needs replicas 1"),
        (OPERATOR, {"leaderElection.retrySeconds": 12}, "retrySeconds has to be less than renewDeadlineSeconds"),
        (OPERATOR, {"serviceAccount.create": False}, "serviceAccount.create false needs serviceAccount.name"),
        (OPERATOR, {"extraEnv": [{"name": f"{PREFIX}WORKERS", "value": "1"}]}, "the chart sets COMMONPLACE_OPERATOR_W"),
        (TENANCY, {"team": {}}, "Additional property team is not allowed"),
        (TENANCY, {"teams.shop": {"projects": [{"nam": "x"}]}}, "teams.shop.projects.0: Additional property nam"),
        (TENANCY, {"runtimes.main": {}}, "runtimes.main: database is required"),
        (TENANCY, {"teams.shop": {"apiKeys": {"a": {"scope": ["*"]}}}}, "teams.shop.apiKeys.a: scopes is required"),
        (TENANCY, {"teams.shop": {"quotas": {"a": {"hard": {"workers": 1.5}}}}}, "teams.shop.quotas.a.hard.workers"),
        (TENANCY, {"teams.shop": {}}, "teams.shop: runtimeRef.name is needed, because runtimes has 0 entries"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else str(value)[:40],
)
def test_a_wrong_value_is_refused_with_what_to_do(chart: Path, values: dict[str, Any], message: str) -> None:
    assert message in refusal(chart, values)


# --- the Deployment


def container(objects: list[Json]) -> Json:
    (found,) = helm.one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(objects: list[Json]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container(objects)["env"]}


def test_every_variable_is_a_setting_of_the_operator_with_its_default() -> None:
    given = {name.removeprefix(PREFIX): value for name, value in environment(rendered()).items()}

    for name in set(given) - {"NAMESPACE", "HOST"}:
        field = Settings.model_fields[name.lower()]
        default = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default).lower()
        assert given[name].removesuffix(".0") == default.removesuffix(".0"), name
    assert given["HOST"] == "0.0.0.0"
    assert set(Settings.model_fields) <= {name.lower() for name in given}, "a setting without a value"


def test_the_programs_environment_is_free_of_what_services_add() -> None:
    # A Service commonplace-operator would set COMMONPLACE_OPERATOR_PORT=tcp://…, which is no port.
    assert helm.one(rendered(), "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, f"commonplace/operator:{contract.VERSION}"),
        ({"image.repository": "r.example.com/op", "image.tag": "1.2.3"}, "r.example.com/op:1.2.3"),
        ({"image.digest": f"sha256:{'0' * 64}", "image.tag": "1.2.3"}, f"commonplace/operator@sha256:{'0' * 64}"),
    ],
    ids=["default", "tag", "digest"],
)
def test_the_image_and_the_test_pods_image_are_one(values: dict[str, Any], image: str) -> None:
    objects = rendered(values=values)
    assert container(objects)["image"] == image
    assert helm.one(objects, "Pod")["spec"]["containers"][0]["image"] == image


def test_an_upgrade_keeps_selectors_and_names() -> None:
    changed = {
        "image.tag": "9.9.9",
        "replicas": 5,
        "podLabels": {"a": "b"},
        "operatorClass": "blue",
        "log.level": "debug",
    }
    before, after = rendered(), rendered(values=changed)

    for objects in (before, after):
        selector = helm.one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
        assert selector == {
            "app.kubernetes.io/name": "commonplace",
            "app.kubernetes.io/instance": "commonplace",
            "app.kubernetes.io/component": "operator",
        }
        assert helm.one(objects, "Service")["spec"]["selector"] == selector
        assert helm.one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == selector
    assert [(o["kind"], o["metadata"]["name"]) for o in before] == [(o["kind"], o["metadata"]["name"]) for o in after]


def test_the_test_pod_is_not_taken_for_an_operator() -> None:
    objects = rendered()
    selector = helm.one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    labels = helm.one(objects, "Pod")["metadata"]["labels"]
    assert any(labels[key] != value for key, value in selector.items())


def test_no_name_is_too_long_for_what_it_names() -> None:
    objects = rendered(release="r" * 53, namespace="n" * 63, values={"serviceMonitor.enabled": True})
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for found in objects:
        limit = 253 if found["kind"] in cluster_wide else 63
        assert len(found["metadata"]["name"]) <= limit
        for value in found["metadata"].get("labels", {}).values():
            assert len(value) <= 63


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("commonplace", {}, "commonplace-operator"),
        ("my-commonplace", {}, "my-commonplace-operator"),
        ("prod", {}, "prod-commonplace-operator"),
        ("prod", {"nameOverride": "memory"}, "prod-memory-operator"),
        ("prod", {"fullnameOverride": "memory"}, "memory-operator"),
    ],
    ids=str,
)
def test_objects_are_called_after_the_release(release: str, values: dict[str, Any], name: str) -> None:
    assert helm.one(rendered(release=release, values=values), "Deployment")["metadata"]["name"] == name


@pytest.mark.parametrize("file", [*helm.VARIANTS, *helm.EXAMPLES], ids=lambda file: file.stem)
def test_rendering_twice_gives_the_same_bytes(file: Path) -> None:
    chart = OPERATOR if file in helm.VARIANTS else TENANCY
    assert helm.template(chart, file) == helm.template(chart, file)


@pytest.mark.parametrize("chart", [OPERATOR, TENANCY], ids=lambda chart: chart.name)
def test_templates_use_no_chance_clock_or_cluster(chart: Path) -> None:
    changing = re.compile(
        r"\b(rand\w+|uuidv4|genCA|gen\w+Cert|genPrivateKey|now|date|ago|lookup|htpasswd|derivePassword)\b"
    )
    actions = re.compile(r"{{(?!-? ?/\*)(.*?)}}", re.DOTALL)
    for file in sorted((chart / "templates").rglob("*.*")):
        for action in actions.findall(file.read_text()):
            code = re.sub(r'"[^"]*"', "", action)
            assert not changing.search(code), f"{file.name}: {action}"


# --- rights


def rules(objects: list[Json], kind: str) -> list[Json]:
    return [rule for found in helm.of_kind(objects, kind) for rule in found["rules"]]


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["cluster", "namespaced"])
def test_no_rule_has_a_wildcard_or_lets_the_operator_give_itself_rights(values: dict[str, Any]) -> None:
    objects = rendered(values=values)
    for rule in rules(objects, "Role") + rules(objects, "ClusterRole"):
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert not {"pods/exec", "pods/attach", "serviceaccounts/token", "nodes"} & set(rule["resources"])


def test_the_namespaced_form_has_no_right_in_the_whole_cluster_but_to_get_a_few_namespaces() -> None:
    objects = rendered(values=NAMESPACED | {"rbac.aggregate": False})

    assert rules(objects, "ClusterRole") == [
        {
            "apiGroups": [""],
            "resources": ["namespaces"],
            "resourceNames": ["kube-system", "team-a", "team-b"],
            "verbs": ["get"],
        }
    ]
    bound = {(b["metadata"]["namespace"], b["metadata"]["name"]) for b in helm.of_kind(objects, "RoleBinding")}
    assert bound == {
        ("commonplace-system", "commonplace-operator-own"),
        ("team-a", "commonplace-operator"),
        ("team-b", "commonplace-operator"),
    }


def test_nothing_cluster_wide_is_left_where_an_administrator_grants_the_rest() -> None:
    values = NAMESPACED | {"rbac.aggregate": False, "rbac.namespaceReader": False, "crds.install": False}
    assert [found for found in rendered(values=values) if "namespace" not in found["metadata"]] == []


def test_two_releases_of_one_name_share_no_cluster_wide_object() -> None:
    def cluster_wide(namespace: str) -> set[str]:
        objects = rendered(namespace=namespace, values={"crds.install": False})
        return {found["metadata"]["name"] for found in objects if "namespace" not in found["metadata"]}

    assert cluster_wide("one") & cluster_wide("two") == set()


def test_those_who_view_see_our_objects_and_no_secret() -> None:
    roles = {role["metadata"]["name"]: role for role in helm.of_kind(rendered(), "ClusterRole")}
    view = roles["commonplace-view:commonplace-system"]

    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {group for rule in view["rules"] for group in rule["apiGroups"]} == {"commonplace.dev"}
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}


# --- the network


def test_the_operators_port_is_open_to_those_named_and_to_the_test_pod() -> None:
    scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    objects = rendered(values={"networkPolicy.metricsFrom": [scraper]})
    policy = helm.one(objects, "NetworkPolicy")["spec"]
    labels = helm.one(objects, "Pod")["metadata"]["labels"]

    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert rule["from"][0] == scraper
    assert rule["from"][1]["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for port in rule["ports"]] == [8780]


def test_egress_is_restricted_only_where_it_is_named() -> None:
    rule = {"ports": [{"port": 5432, "protocol": "TCP"}]}
    policy = helm.one(rendered(values={"networkPolicy.egress": [rule]}), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == [rule]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"networkPolicy.enabled": False}, "NetworkPolicy"),
        ({"podDisruptionBudget.enabled": False}, "PodDisruptionBudget"),
        ({"replicas": 1}, "PodDisruptionBudget"),
        ({"rbac.create": False}, "ClusterRole"),
        ({"serviceAccount.create": False, "serviceAccount.name": "mine"}, "ServiceAccount"),
        ({}, "ServiceMonitor"),
        ({}, "PrometheusRule"),
    ],
    ids=str,
)
def test_a_switch_leaves_its_object_out(values: dict[str, Any], kind: str) -> None:
    assert helm.of_kind(rendered(values=values), kind) == []


# --- the tenancy chart


def tenancy(*files: Path, **values: Any) -> list[Json]:
    return helm.documents(helm.template(TENANCY, *files, values=values, namespace="memory"))


def test_a_later_values_file_changes_one_entry_adds_one_and_takes_one_away(tmp_path: Path) -> None:
    overlay = tmp_path / "staging.yaml"
    overlay.write_text(
        yaml.safe_dump(
            {
                "runtimes": {"main": {"api": {"replicas": 1}}},
                "teams": {"shop": {"apiKeys": {"auditor": None, "ci": {"scopes": ["memories:read"]}}}},
            }
        )
    )
    base = TENANCY / "examples" / "production.yaml"
    before, after = tenancy(base), tenancy(base, overlay)

    runtime = helm.one(after, "MemoryRuntime")["spec"]
    assert runtime == helm.one(before, "MemoryRuntime")["spec"] | {"api": runtime["api"]}
    assert runtime["api"]["replicas"] == 1
    assert {key["metadata"]["name"] for key in helm.of_kind(before, "ApiKey")} == {
        "shop-auditor",
        "shop-checkout-agent",
    }
    assert {key["metadata"]["name"] for key in helm.of_kind(after, "ApiKey")} == {"shop-ci", "shop-checkout-agent"}


def test_a_spec_is_rendered_word_for_word() -> None:
    values = yaml.safe_load((TENANCY / "examples" / "production.yaml").read_text())
    objects = tenancy(TENANCY / "examples" / "production.yaml")
    assert helm.one(objects, "MemoryRuntime")["spec"] == values["runtimes"]["main"]
    quota = values["teams"]["shop"]["quotas"]["monthly"]
    assert helm.one(objects, "Quota")["spec"] == {"teamRef": {"name": "shop"}} | quota


def test_a_team_finds_the_only_runtime_wherever_it_lies() -> None:
    objects = tenancy(TENANCY / "examples" / "multi-team.yaml")
    assert {team["metadata"]["namespace"] for team in helm.of_kind(objects, "MemoryTeam")} == {
        "team-shop",
        "team-warehouse",
    }
    for team in helm.of_kind(objects, "MemoryTeam"):
        assert team["spec"]["runtimeRef"] == {"name": "main", "namespace": "memory"}


def test_two_entries_that_would_be_one_object_are_refused() -> None:
    key = {"scopes": ["memories:read"]}
    values = {
        "runtimes": {"main": {"database": {"embedded": True}}},
        "teams": {"shop": {"apiKeys": {"web-ci": key}}, "shop-web": {"apiKeys": {"ci": key}}},
    }
    said = refusal(TENANCY, values)
    assert "teams.shop.apiKeys.web-ci and teams.shop-web.apiKeys.ci would both be ApiKey" in said
    assert "give one of them another name" in said


def test_a_name_too_long_is_refused_and_not_cut() -> None:
    values = {
        "runtimes": {"main": {"database": {"embedded": True}}},
        "teams": {"t" * 40: {"apiKeys": {"k" * 30: {"scopes": ["*"]}}}},
    }
    assert "more than 63 characters; give the entry a shorter name" in refusal(TENANCY, values)


def test_labels_annotations_class_and_keep_reach_every_object() -> None:
    objects = tenancy(
        TENANCY / "examples" / "production.yaml",
        labels={"a": "b"},
        annotations={"c": "d"},
        operatorClass="blue",
        keep=True,
    )
    assert len(objects) == 5
    for found in objects:
        assert found["metadata"]["labels"]["a"] == "b"
        assert found["metadata"]["annotations"] == {
            "c": "d",
            "commonplace.dev/operator-class": "blue",
            "helm.sh/resource-policy": "keep",
        }
