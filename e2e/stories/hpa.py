"""The same burst, scaled by a HorizontalPodAutoscaler from a real Prometheus through a real prometheus-adapter."""

from pathlib import Path
from typing import Any, Final

import yaml

from commonplace_runtime import contract
from e2e.cluster.node_images import (
    PROMETHEUS_ADAPTER_IMAGE,
    PROMETHEUS_IMAGE,
    prometheus_adapter_image_tar,
    prometheus_image_tar,
)
from e2e.report import CheckFailed
from e2e.site import REPOSITORY, TENANT, Site
from e2e.stories.burst import PROVIDER, SCALING, run_burst, use_fake_provider

RULES: Final = REPOSITORY / "deploy" / "prometheus" / "adapter-rules.yaml"
MONITORING: Final = "monitoring"
METRIC: Final = "commonplace_queue_desired_workers"

SERVED: Final = "hpa: the external metric is served through the adapter"
PEAK: Final = "hpa: at least 3 workers at the peak"
DRAINED: Final = "hpa: all 5,000 jobs are completed"
BACK: Final = "hpa: back at the minimum"
OWNED: Final = "hpa: the operator writes no replicas meanwhile"
ROWS: Final = (SERVED, PEAK, DRAINED, BACK, OWNED)


def tell(site: Site) -> None:
    """Monitoring, mode HPA, the burst, and who owned the replicas."""
    report = site.report
    with report.step("run Prometheus and prometheus-adapter"), report.check(SERVED) as row:
        _run_monitoring(site)
        row.seen = _metric(site)
    with report.step("the same burst in mode HPA"):
        if site.get("configmap", PROVIDER) is None:
            use_fake_provider(site)
        run_burst(site, {**SCALING, "mode": "HPA"}, peak=PEAK, drained=DRAINED, back=BACK, while_scaled=_check_owner)


def _check_owner(site: Site) -> None:
    with site.report.check(OWNED) as row:
        body = site.kubectl("get", "deployment", "main-worker", "-o", "json", "--show-managed-fields")
        owners = [
            entry["manager"]
            for entry in yaml.safe_load(body)["metadata"]["managedFields"]
            if "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        ]
        if owners != ["kube-controller-manager"]:
            raise CheckFailed(f"spec.replicas is owned by {owners}")
        row.seen = f"spec.replicas is owned by {owners[0]}"


def _run_monitoring(site: Site) -> None:
    for archive in (prometheus_image_tar(site.report.say), prometheus_adapter_image_tar(site.report.say)):
        site.cluster.load(archive)
    site.kubectl("create", "namespace", MONITORING)
    site.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(_manifests()), namespace="")
    for name in ("prometheus", "prometheus-adapter"):
        site.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s", namespace=MONITORING)
    site.wait("apiservice/v1beta1.external.metrics.k8s.io", "condition=Available", seconds=90)


def _metric(site: Site) -> str:
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{TENANT}/{METRIC}?labelSelector=runtime%3D{TENANT}.main"

    def value() -> str | None:
        try:
            items = yaml.safe_load(site.kubectl("get", "--raw", path))["items"]
        except CheckFailed:
            return None
        return str(items[0]["value"]) if items else None

    return f"{METRIC} = {site.until(value, 'the adapter serves no value', seconds=120, every=1)}"


def _manifests() -> list[dict[str, Any]]:
    """Prometheus scrapes the API's Service as a ServiceMonitor would have it; the adapter has the project's rules."""
    scrape = {
        "job_name": "commonplace",
        "scrape_interval": "2s",
        "static_configs": [
            {"targets": [f"main-api.{TENANT}.svc:{contract.METRICS_PORT}"], "labels": {"namespace": TENANT}}
        ],
    }
    adapter = [
        "--config=/etc/rules/adapter-rules.yaml",
        f"--prometheus-url=http://prometheus.{MONITORING}.svc:9090",
        "--secure-port=6443",
        "--cert-dir=/tmp/certificates",
        "--metrics-relist-interval=5s",
        "--metrics-max-age=1m",
    ]
    server = ["--config.file=/etc/rules/prometheus.yaml", "--storage.tsdb.path=/tmp/data"]
    return [
        _config("prometheus", "prometheus.yaml", yaml.safe_dump({"scrape_configs": [scrape]})),
        _config("prometheus-adapter", "adapter-rules.yaml", _rules(RULES)),
        *_server("prometheus", PROMETHEUS_IMAGE, server, port=9090),
        *_server("prometheus-adapter", PROMETHEUS_ADAPTER_IMAGE, adapter, port=6443),
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "prometheus-adapter", "namespace": MONITORING},
        },
        _binding("adapter-delegator", "system:auth-delegator", "prometheus-adapter", MONITORING),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "adapter-reader", "namespace": "kube-system"},
            "roleRef": _role("Role", "extension-apiserver-authentication-reader"),
            "subjects": [_account("prometheus-adapter", MONITORING)],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "adapter-discovery"},
            "rules": [{"apiGroups": [""], "resources": ["namespaces", "pods"], "verbs": ["get", "list", "watch"]}],
        },
        _binding("adapter-discovery", "adapter-discovery", "prometheus-adapter", MONITORING),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "external-metrics-reader"},
            "rules": [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}],
        },
        _binding("external-metrics-reader", "external-metrics-reader", "horizontal-pod-autoscaler", "kube-system"),
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
            "spec": {
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"name": "prometheus-adapter", "namespace": MONITORING, "port": 6443},
            },
        },
    ]


def _rules(file: Path) -> str:
    """The rules as the adapter reads them, out of values for its chart."""
    document = yaml.safe_load(file.read_text())
    found = document.get("rules", document)
    rules = found.get("external") if isinstance(found, dict) else None
    return yaml.safe_dump({"externalRules": rules} if rules is not None else document)


def _config(name: str, key: str, text: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": MONITORING},
        "data": {key: text},
    }


def _server(name: str, image: str, args: list[str], *, port: int) -> list[dict[str, Any]]:
    labels = {"app": name}
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "volumeMounts": [{"name": "rules", "mountPath": "/etc/rules"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: dict[str, Any] = {
        "containers": [container],
        "volumes": [{"name": "rules", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}],
    }
    if name == "prometheus-adapter":
        spec["serviceAccountName"] = name
    metadata = {"name": name, "namespace": MONITORING}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": port, "targetPort": port}]},
        },
    ]


def _binding(name: str, role: str, account: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": _role("ClusterRole", role),
        "subjects": [_account(account, namespace)],
    }


def _role(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def _account(name: str, namespace: str) -> dict[str, str]:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}
