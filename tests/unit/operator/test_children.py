"""What holds for the children of every managed runtime, whatever it asks for."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from commonplace_operator.children.installation import runtime_label
from commonplace_operator.children.migration import migration_hash
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_runtime import contract
from tests.unit.operator.managed import (
    EXAMPLES,
    OWN_REGISTRY,
    OWNER_URI,
    PASSWORDS,
    PRODUCTION,
    TRIAL,
    Example,
    child,
    children,
    clear,
    installed,
    pod_templates,
)

ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(pod: Mapping[str, Any]) -> Iterator[str]:
    """The Pod Security Standard `restricted`, control by control, on a pod's spec."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= ALLOWED_VOLUMES:
            yield f"volume {volume}"
    whole = pod.get("securityContext", {})
    if whole.get("sysctls") or whole.get("supplementalGroups") == [0]:
        yield "sysctls"
    for container in [*pod.get("initContainers", []), *pod["containers"], *pod.get("ephemeralContainers", [])]:
        yield from container_violations(container, whole)


def container_violations(container: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[str]:
    """The same for one container of a pod whose own security context is `whole`."""
    own = container.get("securityContext", {})
    effective = {**whole, **own}
    if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
        yield "runs as root"
    if effective.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccomp"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "privileges"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if own.get("procMount", "Default") != "Default" or own.get("seLinuxOptions") or own.get("windowsOptions"):
        yield "process options"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "host port"


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_every_pod_is_restricted_and_writes_to_volumes_only(example: Example) -> None:
    templates = pod_templates(example)
    assert {"api", "worker", "migrate"} <= set(templates)
    for component, template in templates.items():
        assert list(violations(template["spec"])) == [], component
        assert template["spec"]["automountServiceAccountToken"] is False
        [container] = template["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claims = {"data"} if component in {"postgres", "redis"} else set()
        assert mounted == {volume["name"] for volume in template["spec"]["volumes"]} | claims


def test_the_check_of_restricted_pods_finds_what_is_not() -> None:
    bad = {"hostPID": True, "volumes": [{"hostPath": {}}], "containers": [{"securityContext": {"runAsNonRoot": True}}]}
    assert set(violations(bad)) >= {"hostPID", "seccomp", "privileges", "capabilities"}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_only_secrets_hold_secrets(example: Example) -> None:
    secret_values = [PASSWORDS.owner, PASSWORDS.runtime, PASSWORDS.operator, PASSWORDS.redis]
    secret_values += [value for data in example.secrets.values() for value in data.values() if "hunter2" in value]
    for manifest in children(example):
        if manifest["kind"] != "Secret":
            text = json.dumps(manifest)
            assert [value for value in (*secret_values, "hunter2") if value in text] == []


UNRELATED: dict[str, dict[str, Any]] = {
    "api.replicas": {"api": {"replicas": 7}},
    "autoscaling bounds": {"workers": {"concurrency": 16, "autoscaling": {"minReplicas": 0, "maxReplicas": 99}}},
    "worker replicas": {
        "workers": {"concurrency": 16, "replicas": 9, "autoscaling": {"minReplicas": 2, "maxReplicas": 40}}
    },
    "autoscaling mode": {"workers": {"concurrency": 16, "autoscaling": {"mode": "HPA", "idleCooldownSeconds": 1}}},
    "allowedTeams": {"allowedTeams": {"from": "Same"}},
    "deletionPolicy": {"deletionPolicy": "Delete"},
    "ingress annotations": {"ingress": {**PRODUCTION.spec["ingress"], "annotations": {"a": "b"}, "className": "x"}},
    "monitoring": {"monitoring": {}},
}


@pytest.mark.parametrize("change", UNRELATED.values(), ids=UNRELATED)
def test_no_pod_restarts_for_what_does_not_concern_it(change: dict[str, Any]) -> None:
    changed = PRODUCTION.changed(**change)
    assert pod_templates(changed) == pod_templates(PRODUCTION)


def test_the_trials_pods_outlive_a_changed_policy_and_volume() -> None:
    changed = TRIAL.changed(deletionPolicy="Delete", database={"embedded": True, "storage": {"size": "1Gi"}})
    assert pod_templates(changed) == pod_templates(TRIAL)
    retention = child(changed, "StatefulSet", "-postgres")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert retention == {"whenDeleted": "Delete", "whenScaled": "Retain"}


def differing(one: Example, other: Example) -> set[str]:
    before, after = pod_templates(one), pod_templates(other)
    return {component for component in before if before[component] != after[component]}


def test_pods_restart_for_another_image_and_for_other_credentials_of_their_own() -> None:
    everything = {"api", "worker", "migrate"}
    assert differing(PRODUCTION, PRODUCTION.changed(image={"tag": "0.2.0"})) == everything
    assert differing(PRODUCTION, PRODUCTION.with_secret("memory-queue", uri="redis://other:6379")) == {"api", "worker"}
    assert differing(PRODUCTION, PRODUCTION.with_secret("model-keys", gemini="another")) == {"worker"}
    moved = PRODUCTION.with_secret("memory-owner", uri=OWNER_URI.replace("db.example", "db2.example"))
    assert differing(PRODUCTION, moved) == everything
    owners_password = PRODUCTION.with_secret("memory-owner", uri=OWNER_URI.replace("hunter2-owner", "changed"))
    assert differing(PRODUCTION, owners_password) == {"migrate"}


def test_a_newly_minted_password_restarts_who_uses_it() -> None:
    def changed(**passwords: str) -> set[str]:
        before, after = pod_templates(TRIAL), pod_templates(TRIAL, passwords=replace(PASSWORDS, **passwords))
        return {component for component in before if before[component] != after[component]}

    assert changed(runtime="another") == {"api", "worker", "migrate"}
    assert changed(operator="another") == {"migrate"}
    assert changed(owner="another") == {"migrate", "postgres"}
    assert changed(redis="another") == {"api", "worker", "redis"}


def test_a_migration_runs_anew_for_another_image_version_or_credential_only() -> None:
    known = migration_hash(installed(PRODUCTION))
    for change in UNRELATED.values():
        assert migration_hash(installed(PRODUCTION.changed(**change))) == known
    others = [
        PRODUCTION.changed(image={"digest": "sha256:" + "0" * 64}),
        PRODUCTION.changed(version="0.2.0"),
        PRODUCTION.with_secret("memory-owner", uri=OWNER_URI.replace("hunter2-owner", "changed")),
        replace(PRODUCTION, annotations={names.ANNOTATION_ALLOW_OLDER: "0.1.0"}),
    ]
    assert len({known, *(migration_hash(installed(other)) for other in others)}) == 5


def test_going_back_is_for_one_version_only() -> None:
    def args(version: str) -> list[str]:
        asked = replace(PRODUCTION, annotations={names.ANNOTATION_ALLOW_OLDER: version})
        found: list[str] = pod_templates(asked)["migrate"]["spec"]["containers"][0]["args"]
        return found

    assert "--allow-newer-schema" in args("0.1.0")
    assert "--allow-newer-schema" not in args("0.2.0")


def selectors(example: Example) -> dict[tuple[str, str], Any]:
    found = {}
    for manifest in children(example):
        spec = manifest.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector is not None:
            found[manifest["kind"], manifest["metadata"]["name"]] = selector
    return found


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_selectors_never_change_and_choose_the_pods_they_are_for(example: Example) -> None:
    later = example.changed(version="9.9.9", api={"replicas": 9}, image={"tag": "x"}, provider={"name": "extractive"})
    assert selectors(later) == selectors(example)
    labels = {component: template["metadata"]["labels"] for component, template in pod_templates(example).items()}
    for (kind, name), selector in selectors(example).items():
        if kind == "ServiceMonitor":
            continue  # it chooses Services
        wanted = selector.get("matchLabels", selector).items()
        chosen = {component for component, known in labels.items() if wanted <= known.items()}
        component = name.removeprefix(f"{example.name}-")
        assert chosen == (set(labels) if component == "deny" else {component}), (kind, name)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_names_fit_for_the_longest_name_of_a_runtime(example: Example) -> None:
    for manifest in children(example.named("r" * 40)):
        metadata = manifest["metadata"]
        assert len(metadata["name"]) <= 63, metadata["name"]
        assert all(len(value) <= 63 for value in metadata["labels"].values())
        if manifest["kind"] == "StatefulSet":
            # controller-revision-hash appends a hash of 10.
            assert len(metadata["name"]) + 11 <= 63
        if manifest["kind"] == "Job":
            # The pod's label job-name; five digits for the number of the try.
            assert len(metadata["name"]) + 4 <= 63


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_every_child_is_owned_and_labelled(example: Example) -> None:
    for manifest in children(example):
        metadata = manifest["metadata"]
        assert metadata["labels"][names.LABEL_MANAGED_BY] == names.MANAGED_BY
        assert metadata["labels"][names.LABEL_RUNTIME] == example.name
        [owner] = metadata["ownerReferences"]
        assert owner["uid"] == metadata["labels"][names.LABEL_OWNER_UID]
    kinds_and_names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in children(example)]
    assert len(set(kinds_and_names)) == len(kinds_and_names)


@pytest.mark.parametrize("mode", ["Operator", "HPA", "KEDA", "Manual"])
def test_how_many_workers_there_are_is_never_applied(mode: str) -> None:
    example = PRODUCTION.changed(workers={"replicas": 3, "autoscaling": {"mode": mode, "minReplicas": 2}})
    assert "replicas" not in child(example, "Deployment", "-worker")["spec"]
    assert child(example, "Deployment", "-api")["spec"]["replicas"] == 3


def environment(example: Example, component: str) -> dict[str, Any]:
    [container] = pod_templates(example)[component]["spec"]["containers"]
    return {
        entry["name"]: entry.get("value", entry.get("valueFrom", {}).get("secretKeyRef")) for entry in container["env"]
    }


def test_only_the_migration_knows_the_owner_and_only_workers_know_models() -> None:
    owner = {"name": "memory-owner", "key": "uri"}
    for component in ("api", "worker"):
        assert owner not in environment(PRODUCTION, component).values()
    assert environment(PRODUCTION, "migrate")[contract.ENV_ADMIN_DATABASE_URL] == owner
    key = {"name": "model-keys", "key": "anthropic"}
    assert environment(PRODUCTION, "worker")[contract.ENV_ANTHROPIC_API_KEY] == key
    assert key not in [*environment(PRODUCTION, "api").values(), *environment(PRODUCTION, "migrate").values()]


def test_no_variable_is_empty_or_given_twice() -> None:
    """The API server leaves an empty value out, so it would be applied again and again."""
    for example in EXAMPLES.values():
        for component, template in pod_templates(example).items():
            env = template["spec"]["containers"][0].get("env", [])
            assert len({entry["name"] for entry in env}) == len(env), component
            assert all(entry.get("value", "x") for entry in env), component


def test_the_chain_of_providers_is_the_runtimes_own_spelling() -> None:
    env = environment(PRODUCTION, "worker")
    assert (env[contract.ENV_PROVIDER], env[contract.ENV_PROVIDER_FALLBACKS]) == ("anthropic", "gemini,extractive")
    assert contract.ENV_OPENAI_BASE_URL not in env
    own = environment(OWN_REGISTRY, "worker")
    assert own[contract.ENV_OPENAI_BASE_URL] == {"name": "vllm", "key": "base-url"}


def test_no_value_of_the_spec_shows_another_variable() -> None:
    """The kubelet puts variables in the place of `$(NAME)`, and two dollars mean one."""
    name = f"$({contract.ENV_DATABASE_URL})"
    example = PRODUCTION.changed(provider={"name": "extractive", "model": name}, publicUrl=f"https://a/{name}")
    assert environment(example, "worker")[contract.ENV_MODEL] == f"${name}"
    assert environment(example, "api")[contract.ENV_PUBLIC_URL] == f"https://a/${name}"


def egress(example: Example, component: str) -> set[int]:
    rules = child(example, "NetworkPolicy", f"-{component}")["spec"].get("egress", [])
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_pods_get_out_to_what_their_secrets_name_and_no_further() -> None:
    assert egress(PRODUCTION, "api") == {53, 5353, 5433, 6390}
    assert egress(PRODUCTION, "worker") == {53, 5353, 5433, 6390, 443}
    assert egress(OWN_REGISTRY, "worker") == {53, 5353, 6432, 8000}
    assert egress(OWN_REGISTRY, "migrate") == {53, 5353, 6432, 5433}
    assert egress(TRIAL, "worker") == {53, 5353, 5432, 6379}
    assert egress(TRIAL, "postgres") == set()


def test_the_minted_credentials_reach_the_owners_database() -> None:
    data = clear(child(PRODUCTION, "Secret", "-database"))
    assert data["runtime-uri"].startswith("postgresql://commonplace_runtime_")
    assert data["runtime-uri"].endswith("@db.example.com:5433/memory?sslmode=require")
    assert data["operator-uri"].endswith("@db.example.com:5433/memory?sslmode=require")
    assert "hunter2-owner" not in str(data)


def test_the_label_of_the_metrics_fits_whatever_the_namespace_is_called() -> None:
    def label(namespace: str, name: str) -> str:
        body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"database": {"embedded": True}}}
        return runtime_label(MemoryRuntime.parse(body))

    assert label("memory", "main") == "memory.main"
    long = label("n" * 63, "r" * 40)
    assert len(long) <= 63
    assert long != label("n" * 63, "s" * 40)
