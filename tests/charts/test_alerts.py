"""Alerts and adapter rules: checked by promtool, and held to the names of the metrics that are really exported."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from charts.generate import REPOSITORY
from commonplace_operator.engine.metrics import Metrics
from commonplace_runtime.observability import REGISTRY, QueueGauges
from commonplace_runtime.scaling import QueueFigures
from e2e.cluster.programs import ensure_promtool
from tests.charts import helm

ALERTS = helm.OPERATOR / "files" / "alerts.yaml"
CASES = Path(__file__).parent / "alerts_test.yaml"
ADAPTER = REPOSITORY / "deploy" / "prometheus" / "adapter-rules.yaml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
# A sample's name ends so where its family's does not.
SUFFIX = re.compile(r"_(total|bucket|count|sum)$")


def promtool(*arguments: str | Path) -> None:
    program = ensure_promtool(print)
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def queue() -> QueueGauges:
    figures = QueueFigures(
        backlog=1,
        oldest_seconds=2.0,
        in_flight=3,
        service_seconds=0.5,
        arrival_rate=0.1,
        steady_rate=0.1,
        sessions=1,
        busy_sessions=1,
    )
    gauges = QueueGauges()
    gauges.show("memory.main", figures, 4)
    return gauges


def exported() -> set[str]:
    """Families of the operator, of API and worker, and of the queue."""
    metrics = Metrics()
    metrics.of_queue("commonplace")
    metrics.of_lease("commonplace-operator-default")
    families = [*metrics.collect(), *REGISTRY.collect(), *queue().collect()]
    return {family.name for family in families}


def named(expression: str) -> set[str]:
    """Families that a PromQL expression reads: those of ours have an underscore and stand before a brace or bracket."""
    return {SUFFIX.sub("", name) for name in re.findall(r"\b([a-z]+_[a-z_]+)(?=[{\[)]| *$)", expression)}


@pytest.mark.timeout(900)  # Building promtool takes minutes the first time.
def test_promtool_finds_the_alerts_firing_where_they_should() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", CASES)


def test_every_alert_has_a_case_that_sees_it_fire() -> None:
    seen: set[str] = set()
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for entry in case.get("alert_rule_test", []):
            seen |= {entry["alertname"]} if entry["exp_alerts"] else set()
        for entry in case.get("promql_expr_test", []):
            seen |= {found for s in entry["exp_samples"] for found in re.findall(r'alertname="(\w+)"', s["labels"])}
    assert seen == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_reads_metrics_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    read = named(rule["expr"])
    assert read
    assert read <= exported()
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}


def test_the_chart_installs_the_alerts_as_promtool_read_them() -> None:
    objects = helm.documents(helm.template(helm.OPERATOR, values={"prometheusRule.enabled": True}))
    assert helm.one(objects, "PrometheusRule")["spec"] == yaml.safe_load(ALERTS.read_text())


def test_the_adapter_shows_each_gauge_of_the_queue_once_whatever_the_number_of_replicas() -> None:
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["external"]
    name, namespace, runtime = re.fullmatch(
        r'{__name__=~"(.*)",namespace(.*),runtime(.*)}', rule["seriesQuery"]
    ).groups()  # type: ignore[union-attr]
    assert (namespace, runtime) == ('!=""', '!=""')
    gauges = {family.name for family in queue().collect()}

    assert {gauge for gauge in gauges if re.search(name, gauge)} == gauges
    assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}}
    assert rule["metricsQuery"].startswith("max(")

    registry = CollectorRegistry()
    registry.register(queue())
    assert b'commonplace_queue_desired_workers{runtime="memory.main"} 4.0' in generate_latest(registry)
