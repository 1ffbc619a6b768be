"""Each CEL rule of the CRDs refuses one object, with its own message and nothing else to say, and accepts another."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.crds.wire import KINDS, MINIMAL, Json, Wire, causes, fields, merged, new_object, schema


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One entry of `x-kubernetes-validations`."""

    plural: str
    at: str
    message: str
    field: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    Two objects around one rule, as changes of the minimal spec.

    at, says: the rule's place in the schema and the beginning of its message. old: what was stored before, for a rule
    about changes.
    """

    plural: str
    at: str
    says: str
    bad: Json = field(default_factory=dict)
    good: Json = field(default_factory=dict)
    old: Json | None = None
    bad_name: str | None = None
    good_name: str | None = None

    @property
    def id(self) -> str:
        return f"{self.plural}:{self.at or 'root'}:{re.sub(r'[^a-z]+', '-', self.says.lower())[:40]}"


NONE: Json = {}
MANAGED: Json = {"management": "Managed", "publicUrl": None, "database": {"operatorSecretRef": None}}
OWNER: Json = {"ownerSecretRef": {"name": "owner"}}
HTTP_URLS_REFUSED = [
    "https://memory.example.com/",
    "https://memory.example.com?team=a",
    "https://memory.example.com#top",
    "https://user:pass@memory.example.com",
    "ftp://memory.example.com",
    "memory.example.com",
    "https://",
]

RUNTIME_CASES = [
    Case(plural="memoryruntimes", at="", says="metadata.name", bad_name="a" * 41, good_name="a" * 40),
    Case(plural="memoryruntimes", at="", says="metadata.name", bad_name="with.dot", good_name="with-dash"),
    Case(
        plural="memoryruntimes",
        at="spec",
        says="management is immutable",
        old={"database": {"operatorSecretRef": {"name": "a"}}},
        bad=merged(MANAGED, {"database": OWNER}),
        good={"publicUrl": "https://other.example.com"},
    ),
    Case(plural="memoryruntimes", at="spec", says="publicUrl is required", bad={"publicUrl": None}),
    Case(
        plural="memoryruntimes",
        at="spec",
        says="database.operatorSecretRef is required",
        bad={"database": {"operatorSecretRef": None}},
    ),
    *(
        Case(
            plural="memoryruntimes",
            at="spec",
            says="with management External the operator must not hold",
            bad={"database": {credentials: {"name": "a"}}},
            good=merged(MANAGED, {"database": OWNER | {credentials: {"name": "a"}}}),
        )
        for credentials in ("ownerSecretRef", "runtimeSecretRef")
    ),
    *(
        Case(
            plural="memoryruntimes",
            at="spec",
            says="management Managed needs",
            bad=merged(MANAGED, {"database": {"embedded": False}}),
            good=merged(MANAGED, {"database": enough}),
        )
        for enough in (OWNER, {"embedded": True})
    ),
    Case(
        plural="memoryruntimes",
        at="spec",
        says="with management External the Ingress",
        bad={"ingress": {"host": "memory.example.com"}},
        good=merged(MANAGED, {"database": OWNER, "ingress": {"host": "memory.example.com"}}),
    ),
    *(
        Case(
            plural="memoryruntimes",
            at="spec.publicUrl",
            says="publicUrl must be",
            bad={"publicUrl": url},
            good={"publicUrl": "http://127.0.0.1:8787/memory"},
        )
        for url in HTTP_URLS_REFUSED
    ),
    *(
        Case(
            plural="memoryruntimes",
            at="spec.database",
            says="an embedded database has no credentials",
            bad=merged(MANAGED, {"database": {"embedded": True, credentials: {"name": "a"}}}),
            good=merged(MANAGED, {"database": {"embedded": True}}),
        )
        for credentials in ("ownerSecretRef", "runtimeSecretRef", "operatorSecretRef")
    ),
    *(
        Case(
            plural="memoryruntimes",
            at="spec.queue",
            says="queue needs exactly one",
            bad={"queue": bad},
            good={"queue": good},
        )
        for bad, good in (
            (NONE, {"embedded": True}),
            ({"embedded": True, "secretRef": {"name": "a"}}, {"secretRef": {"name": "a"}}),
        )
    ),
    Case(
        plural="memoryruntimes",
        at="spec.provider",
        says="a provider that calls a model",
        bad={"provider": {"name": "anthropic"}},
        good={"provider": {"name": "anthropic", "secretRef": {"name": "a"}}},
    ),
    Case(
        plural="memoryruntimes",
        at="spec.provider.fallbacks[]",
        says="a fallback that calls a model",
        bad={"provider": {"name": "extractive", "fallbacks": [{"name": "gemini"}]}},
        good={"provider": {"name": "extractive", "fallbacks": [{"name": "gemini", "secretRef": {"name": "a"}}]}},
    ),
    Case(
        plural="memoryruntimes",
        at="spec.workers.autoscaling",
        says="minReplicas must not exceed",
        bad={"workers": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}},
        good={"workers": {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}},
    ),
    Case(
        plural="memoryruntimes",
        at="spec.workers.autoscaling",
        says="minReplicas must not exceed",
        bad={"workers": {"autoscaling": {"minReplicas": 11}}},
        good={"workers": {"autoscaling": {"minReplicas": 10}}},
    ),
    Case(
        plural="memoryruntimes",
        at="spec.workers.autoscaling",
        says="mode KEDA needs prometheusAddress",
        bad={"workers": {"autoscaling": {"mode": "KEDA"}}},
        good={"workers": {"autoscaling": {"mode": "KEDA", "prometheusAddress": "http://prometheus:9090"}}},
    ),
    *(
        Case(
            plural="memoryruntimes",
            at="spec.allowedTeams",
            says="selector is required when from is Selector",
            bad={"allowedTeams": bad},
            good={"allowedTeams": good},
        )
        for bad, good in (
            ({"from": "Selector"}, {"from": "Selector", "selector": {}}),
            ({"from": "All", "selector": {}}, {"from": "All"}),
            ({"selector": {}}, {"from": "Same"}),
        )
    ),
    *(
        Case(
            plural="memoryruntimes",
            at="spec.allowedTeams.selector.matchExpressions[]",
            says="values must be given",
            bad={"allowedTeams": {"from": "Selector", "selector": {"matchExpressions": [{"key": "tier", **bad}]}}},
            good={"allowedTeams": {"from": "Selector", "selector": {"matchExpressions": [{"key": "tier", **good}]}}},
        )
        for bad, good in (
            ({"operator": "In"}, {"operator": "In", "values": ["gold"]}),
            ({"operator": "Exists", "values": ["gold"]}, {"operator": "Exists"}),
        )
    ),
]

TEAM_CASES = [
    Case(plural="memoryteams", at="", says="metadata.name", bad_name="a" * 49, good_name="a" * 48),
    *(
        Case(
            plural="memoryteams",
            at="spec",
            says="runtimeRef is immutable",
            old={"runtimeRef": {"name": "prod"}},
            bad={"runtimeRef": changed},
            good={"displayName": "Search"},
        )
        for changed in ({"name": "other"}, {"name": "prod", "namespace": "elsewhere"})
    ),
    *(
        Case(
            plural="memoryteams",
            at="spec",
            says="slug is immutable",
            old={"slug": old},
            bad={"slug": changed},
            good={"slug": old, "displayName": "Search"},
        )
        for old, changed in (("search", "other"), ("search", None), (None, "search"))
    ),
    Case(
        plural="memoryteams",
        at="spec",
        says="isolation is immutable",
        old={"isolation": "Shared"},
        bad={"isolation": "Dedicated"},
        good={"isolation": "Shared", "displayName": "Search"},
    ),
    Case(
        plural="memoryteams",
        at="spec.projects",
        says="the project default exists always",
        bad={"projects": [{"name": "Default"}]},
        good={"projects": [{"name": "default", "displayName": "Everything else"}, {"name": "web"}]},
    ),
    *(
        Case(
            plural="memoryteams",
            at="spec.projects[].name",
            says="a project's name has letters",
            bad={"projects": [{"name": refused}]},
            good={"projects": [{"name": "github.com/example/Web_App-2"}]},
        )
        for refused in ("my project", "-web", "web/", "wéb", "web\n")
    ),
    Case(
        plural="memoryteams",
        at="spec.projects[].name",
        says="a project's name must not look like an id",
        bad={"projects": [{"name": "0198c0de-0000-7000-8000-0000000000AB"}]},
        good={"projects": [{"name": "0198c0de"}]},
    ),
    *(
        Case(
            plural="memoryteams",
            at="spec.members[].actor",
            says="an actor is",
            bad={"members": [{"actor": refused}]},
            good={"members": [{"actor": "human:ada@example.com", "role": "owner"}, {"actor": "agent:ci"}]},
        )
        for refused in ("ada", "human:", "key:a/b", "robot:ada")
    ),
    *(
        Case(
            plural="memoryteams",
            at="spec.policies.generation",
            says="windowSeconds is for",
            bad={"policies": {"generation": bad}},
            good={"policies": {"generation": {"mode": "debounce", "windowSeconds": 60}}},
        )
        for bad in ({"windowSeconds": 60}, {"mode": "per-event", "windowSeconds": 60})
    ),
    *(
        Case(
            plural="memoryteams",
            at="spec.policies.retention.events",
            says="retention.events must be at least 1h",
            bad={"policies": {"retention": {"events": bad}}},
            good={"policies": {"retention": {"events": good}}},
        )
        for bad, good in (("59m", "60m"), ("0s", "1h30m"), ("3599s", "90d"))
    ),
]

KEY_CASES = [
    Case(plural="apikeys", at="", says="metadata.name", bad_name="a" * 64, good_name="a" * 63),
    Case(
        plural="apikeys",
        at="spec",
        says="teamRef is immutable",
        old={"teamRef": {"name": "search"}},
        bad={"teamRef": {"name": "other"}},
        good={"teamRef": {"name": "search"}, "actor": "agent:ci"},
    ),
    Case(
        plural="apikeys",
        at="spec",
        says="expiresAt and rotation are mutually exclusive",
        bad={"expiresAt": "2030-01-01T00:00:00Z", "rotation": {"interval": "720h"}},
        good={"expiresAt": "2030-01-01T00:00:00Z"},
    ),
    *(
        Case(
            plural="apikeys",
            at="spec",
            says="a revoked key cannot be un-revoked",
            old={"revoked": True},
            bad={"revoked": changed},
            good={"revoked": True, "actor": "agent:ci"},
        )
        for changed in (False, None)
    ),
    *(
        Case(
            plural="apikeys",
            at="spec.project",
            says="project must be the name",
            bad={"project": bad},
            good={"project": "github.com/example/Web_App-2"},
        )
        for bad in ("my project", "/web")
    ),
    Case(plural="apikeys", at="spec.actor", says="an actor is", bad={"actor": "ada"}, good={"actor": "human:ada"}),
    Case(
        plural="apikeys",
        at="spec.rotation",
        says="rotation.interval must be at least 1h",
        bad={"rotation": {"interval": "59m", "gracePeriod": "1m"}},
        good={"rotation": {"interval": "1h", "gracePeriod": "1m"}},
    ),
    *(
        Case(
            plural="apikeys",
            at="spec.rotation",
            says="rotation.gracePeriod (24h unless given)",
            bad={"rotation": bad},
            good={"rotation": good},
        )
        for bad, good in (
            ({"interval": "24h", "gracePeriod": "24h"}, {"interval": "24h", "gracePeriod": "23h"}),
            ({"interval": "12h"}, {"interval": "30d"}),
            ({"interval": "1w", "gracePeriod": "7d"}, {"interval": "1w", "gracePeriod": "6d23h"}),
        )
    ),
    *(
        Case(
            plural="apikeys",
            at=f"spec.secret.template.{where}",
            says=f"{where} under commonplace.dev/",
            bad={"secret": {"template": {where: {"commonplace.dev/mac": "x"}}}},
            good={"secret": {"template": {where: {"example.com/team": "search"}}}},
        )
        for where in ("labels", "annotations")
    ),
]

COUNTS = ("requestsPerMinute", "requestsPerMonth", "tokensPerMonth", "memories", "storage", "apiKeys", "workers")
QUOTA_CASES = [
    Case(plural="memoryquotas", at="", says="metadata.name", bad_name="a" * 64, good_name="a" * 63),
    Case(
        plural="memoryquotas",
        at="spec",
        says="teamRef is immutable",
        old={"teamRef": {"name": "search"}},
        bad={"teamRef": {"name": "other"}},
        good={"teamRef": {"name": "search"}, "enforcement": "Warn"},
    ),
    Case(
        plural="memoryquotas",
        at="spec",
        says="a Quota needs at least one limit",
        bad={"hard": None},
        good={"hard": None, "soft": {"tokensPerMonth": 1}},
    ),
    *(
        Case(
            plural="memoryquotas",
            at="spec",
            says="soft.tokensPerMonth must not exceed",
            bad={"hard": {"tokensPerMonth": hard}, "soft": {"tokensPerMonth": over}},
            good={"hard": {"tokensPerMonth": hard}, "soft": {"tokensPerMonth": within}},
        )
        for hard, over, within in ((5, 6, 5), ("5M", 5_000_001, 5_000_000), (1000, "2k", "1k"))
    ),
    *(
        Case(
            plural="memoryquotas",
            at="spec",
            says="soft.costPerMonthUSD must not exceed",
            bad={"hard": {"costPerMonthUSD": hard}, "soft": {"costPerMonthUSD": over}},
            good={"hard": {"costPerMonthUSD": hard}, "soft": {"costPerMonthUSD": within}},
        )
        for hard, over, within in ((50, 50.01, 49.99), (49.9, 50, 49.9))
    ),
    Case(
        plural="memoryquotas",
        at="spec.hard",
        says="hard needs at least one limit",
        bad={"hard": {"memories": None}},
        good={"hard": {"memories": None, "costPerMonthUSD": 12.5}},
    ),
    Case(
        plural="memoryquotas",
        at="spec.soft",
        says="soft needs at least one limit",
        bad={"soft": {}},
        good={"soft": {"costPerMonthUSD": 10}},
    ),
    *(
        Case(
            plural="memoryquotas",
            at=f"spec.{level}.{limit}",
            says=f"{limit} must be",
            bad={level: {limit: bad}},
            good={level: {limit: good}},
        )
        for level, limits in (("hard", COUNTS), ("soft", ("tokensPerMonth",)))
        for limit in limits
        for bad, good in ((-1, 0), ("5Gb", "5G"), ("1.5", "1.5k"), ("-5M", "5M"))
    ),
]

CASES = [*RUNTIME_CASES, *TEAM_CASES, *KEY_CASES, *QUOTA_CASES]


def rules() -> Iterator[Rule]:
    for plural in KINDS:
        for at, node in fields(schema(plural)):
            for rule in node.get("x-kubernetes-validations", []):
                yield Rule(
                    plural=plural,
                    at=at,
                    message=rule["message"],
                    field=f"{at}{rule.get('fieldPath', '')}",
                    reason=rule.get("reason", "FieldValueInvalid"),
                )


RULES = list(rules())


def rule_of(case: Case) -> Rule:
    (found,) = [
        rule
        for rule in RULES
        if (rule.plural, rule.at) == (case.plural, case.at) and rule.message.startswith(case.says)
    ]
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.plural}:{rule.at}:{rule.message[:30]}")
def test_every_rule_has_a_case(rule: Rule) -> None:
    assert any(rule_of(case) == rule for case in CASES), "write a Case with one refused and one accepted object"


def test_every_message_fits_a_terminal_and_every_change_rule_reads_like_the_api_servers_own() -> None:
    for rule in RULES:
        assert 20 < len(rule.message) < 200, rule
        if "immutable" in rule.message or "un-revoked" in rule.message:
            assert rule.reason == "FieldValueForbidden", rule
            assert rule.field != rule.at, rule


def field_of(rule: Rule) -> str:
    """The rule's field as the server names it, list positions and map keys aside."""
    return re.sub(r"\[\]|\{\}", "", rule.field)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_rule_refuses_one_object_with_its_message_and_accepts_another(case: Case, wire: Wire) -> None:
    if case.old is None:
        refused = wire.try_create(case.plural, new_object(case.plural, case.bad, name=case.bad_name))
        accepted = wire.try_create(case.plural, new_object(case.plural, case.good, name=case.good_name))
    else:
        stored = wire.create(case.plural, new_object(case.plural, case.old))
        refused = wire.try_replace(case.plural, stored, merged(MINIMAL[case.plural], case.bad))
        accepted = wire.try_replace(case.plural, stored, merged(MINIMAL[case.plural], case.good))
    rule = rule_of(case)
    assert accepted[0] in (200, 201), accepted[1].get("message")
    assert refused[0] == 422, refused
    ((reason, at, message),) = causes(refused[1])
    assert message.endswith(rule.message)
    assert reason == rule.reason
    assert re.sub(r"\[\d+\]", "", at) == field_of(rule) or not rule.at
