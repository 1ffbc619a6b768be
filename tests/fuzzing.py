"""
Calls every operation of the API's own description with data that schemathesis draws from it, good and bad.

Half of what an id may be stands for something that is there: drawn at random none would ever be found. An operation
may destroy what the next one needs, so the seeds are sown again before each.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import SkipTest

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from commonplace_runtime.entrypoints.http.openapi import MCP_ROUTES

Json = dict[str, Any]

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KNOWN_IDS_IN_TEN: Final = 8
"""Of ten ids that are drawn, so many are replaced by known ones."""
NASTY_DIGIT: Final = 9
"""One text or number in ten is replaced by one of `NASTY`."""
TEAM_KEYS_IN_TEN: Final = 3
"""Of ten calls, so many are made with a key of the whole team, the others with one of a single project."""
FAILURES_KEPT: Final = 3
"""Of each operation."""
NASTY: Final = (
    *("\x00", "a\x00b", "%00", " ", "\ufeff", "9" * 400, "-1", "null", "../../etc/passwd", "a' OR 1=1; --"),
    *("--5", "1e999", "NaN", "\u00b2", "\u0663", "true,false", "Infinity", "[", "{}"),
    *("<private>hidden</private>", "<private>", "0001-01-01", "+275760-09-13T00:00:00Z", "\U0001f600" * 300),
)
"""What takes the place of a value now and then: databases, paths, dates and numbers have each been hurt by one."""
LONE: Final = "lone-surrogate-here"
"""Becomes a lone surrogate on the way out: schemathesis refuses to carry one."""
NASTY_IN_BODIES: Final = (*NASTY, LONE, f"a {LONE} b", "word " * 30_000)
"""In a URL the first two mean nothing, and the last is refused before it is read."""
NASTY_VALUES: Final[tuple[Any, ...]] = (
    *(0, -1, 0.5, 2**31, 2**53, 2**63, 10**30, 1e308, True, None, [], {}, [None], ["a", "a"], ["\x00", LONE]),
    *({"\x00": "\x00"}, {"": {"a": LONE}}, [["a"]], list(range(300))),
)


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """What is there to be found. ids: by the name of a path's part or a body's field."""

    project_key: Mapping[str, str]
    team_key: Mapping[str, str]
    ids: Mapping[str, Sequence[str]]


@dataclass(kw_only=True)
class Tally:
    """What became of the calls of one operation."""

    label: str
    good: int = 0
    refused: int = 0
    broken: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Title → message with a curl command."""

    @property
    def calls(self) -> int:
        """How many there were."""
        return self.good + self.refused + self.broken

    def note(self, status: int) -> None:
        """Count an answer."""
        if 200 <= status < 400:
            self.good += 1
        elif status < 500:
            self.refused += 1
        else:
            self.broken += 1


@dataclass(frozen=True, kw_only=True)
class Report:
    """By operation, in the order of the description."""

    tallies: Sequence[Tally]

    @property
    def share_reached(self) -> float:
        """Of all operations those that answered 2xx at least once, from 0 to 1."""
        return sum(tally.good > 0 for tally in self.tallies) / len(self.tallies)

    @property
    def problems(self) -> list[str]:
        """Every server error and every answer that the description does not know."""
        return [message for tally in self.tallies for message in tally.failures.values()]

    def table(self) -> str:
        """For people: a line for each operation, and the sums."""
        width = max(len(tally.label) for tally in self.tallies)
        total = Tally(
            label="all",
            good=sum(tally.good for tally in self.tallies),
            refused=sum(tally.refused for tally in self.tallies),
            broken=sum(tally.broken for tally in self.tallies),
        )
        lines = [f"{'operation':{width}}  calls    2xx    4xx    5xx"]
        for tally in (*self.tallies, total):
            mark = "  never 2xx" if not tally.good else ""
            mark += f"  {len(tally.failures)} problems" if tally.failures else ""
            lines.append(
                f"{tally.label:{width}} {tally.calls:6} {tally.good:6} {tally.refused:6} {tally.broken:6}{mark}"
            )
        lines.append(f"{self.share_reached:.0%} of {len(self.tallies)} operations reached a 2xx")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Fuzz:
    """
    One run. sow: plants fresh seeds, and may be called from any thread. examples: drawn for each operation in each
    round, a third of them bad on purpose. stride: each field gets one of so many nasty values. seconds: rounds
    are repeated until then; None: one round.
    """

    base_url: str
    description: Json
    sow: Callable[[], Seeds]
    examples: int
    seed: int
    stride: int = 1
    seconds: float | None = None
    say: Callable[[str], None] = lambda _: None

    def run(self) -> Report:
        """Blocks; run it in a thread of its own beside the server."""
        operations = list(self._operations())
        tallies = [Tally(label=operation.label) for operation in operations]
        end = None if self.seconds is None else time.monotonic() + self.seconds
        with requests.Session() as session:
            session.trust_env = False
            session.auth = _with_lone_surrogates
            round_ = 0
            while round_ == 0 or (end is not None and time.monotonic() < end):
                for operation, tally in zip(operations, tallies, strict=True):
                    if round_ and end is not None and time.monotonic() >= end:
                        break
                    caller = _Caller(fuzz=self, session=session, seeds=self.sow(), tally=tally)
                    caller.call_example(operation)
                    if round_ == 0:
                        caller.call_with_each_nasty_value(operation)
                    self._draw(operation, caller, self.seed + round_)
                round_ += 1
                self._tell(round_, tallies, end)
        return Report(tallies=tallies)

    def _operations(self) -> Iterator[Any]:
        """All but MCP, which speaks its own protocol."""
        schema = schemathesis.openapi.from_dict(self.description, config=SchemathesisConfig())
        spoken_elsewhere = {path for path, *_ in MCP_ROUTES}
        for found in schema.get_all_operations():
            if not isinstance(found, Ok):
                raise found.err()
            operation = found.ok()
            if operation.path not in spoken_elsewhere:
                yield operation

    def _draw(self, operation: Any, caller: "_Caller", seed: int) -> None:
        if not (operation.path_parameters or operation.query or operation.body):
            return  # the one call of the example was all that can be drawn
        good = max(1, self.examples * 2 // 3)
        modes = schemathesis.GenerationMode
        for mode, examples in ((modes.POSITIVE, good), (modes.NEGATIVE, self.examples - good)):
            try:
                _each_of(st.tuples(_CHOICES, operation.as_strategy(generation_mode=mode)), caller.call, examples, seed)
            except (SkipTest, Unsatisfiable):
                continue  # nothing of it can be wrong

    def _tell(self, rounds: int, tallies: Sequence[Tally], end: float | None) -> None:
        calls, broken = sum(tally.calls for tally in tallies), sum(tally.broken for tally in tallies)
        problems = sum(len(tally.failures) for tally in tallies)
        left = "" if end is None else f", {max(0, end - time.monotonic()):.0f} s left"
        self.say(f"fuzz: round {rounds}, {calls} calls, {broken} of them 5xx, {problems} problems{left}")


def _with_lone_surrogates(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """For the place where requests lets a signature be made of the whole body."""
    if isinstance(request.body, bytes):
        request.body = request.body.replace(LONE.encode(), b"\\ud800")
    return request


@schemathesis.serializer("application/x-ndjson")
def _lines(_context: Any, value: Any) -> bytes:
    """A text as it is; what is none, because it was drawn to be wrong, as one line of JSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace")


_CHOICES: Final = st.lists(st.integers(0, 9_999), min_size=8, max_size=8)
"""Which ids are replaced by which, and whose key is used."""


def _each_of(strategy: Any, call: Callable[[Any], None], examples: int, seed: int) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(drawn: Any) -> None:
        call(drawn)

    draw()


@dataclass(frozen=True, kw_only=True)
class _Caller:
    """Makes the calls of one operation and counts what comes back."""

    fuzz: Fuzz
    session: requests.Session
    seeds: Seeds
    tally: Tally

    def call_example(self, operation: Any) -> None:
        """As the description's own examples say, with ids that are there."""
        for parts in self._examples(operation):
            self._send(operation.Case(**parts), self.seeds.project_key)

    def call_with_each_nasty_value(self, operation: Any) -> None:
        """The same with every field of query and body once as every value that ever hurt something."""
        for parts in self._examples(operation):
            asked = [each["name"] for each in operation.definition.raw.get("parameters", ()) if each["in"] == "query"]
            for name, value in self._nasty(asked, NASTY):
                self._send_changed(operation, parts, query={**parts["query"], name: value})
            body, values = parts.get("body"), (*NASTY_IN_BODIES, *NASTY_VALUES)
            if isinstance(body, dict):
                for name, value in self._nasty(self._fields(operation), values):
                    self._send_changed(operation, parts, body={**body, name: value})
            elif isinstance(body, str):
                *before, last = body.splitlines()
                for name, value in self._nasty(json.loads(last), values):
                    self._send_changed(
                        operation, parts, body="\n".join([*before, json.dumps({**json.loads(last), name: value})])
                    )

    def _nasty(self, names: Iterable[str], values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
        for place, name in enumerate(names):
            for value in values[place % self.fuzz.stride :: self.fuzz.stride]:
                yield name, value

    def _send_changed(self, operation: Any, parts: Json, **changes: Any) -> None:
        self._send(operation.Case(**{**parts, **changes}), self.seeds.project_key)

    def _examples(self, operation: Any) -> Iterator[Json]:
        definition = operation.definition.raw
        parts: Json = {"path_parameters": {}, "query": {}}
        for each in definition.get("parameters", ()):
            if each["in"] == "path":
                parts["path_parameters"][each["name"]] = self.seeds.ids[each["name"]][0]
            elif each["in"] == "query" and each["required"]:
                usual = each["schema"].get("examples", ["example"])
                parts["query"][each["name"]] = self.seeds.ids.get(each["name"], usual)[0]
        contents = definition.get("requestBody", {}).get("content", {})
        if not contents:
            yield parts
        for media, content in contents.items():
            for example in content.get("examples", {}).values():
                yield {**parts, "body": self._with_known(example["value"], [0]), "media_type": media}

    def _fields(self, operation: Any) -> Iterator[str]:
        for content in operation.definition.raw["requestBody"]["content"].values():
            schema = content["schema"]
            if "$ref" in schema:
                schema = self.fuzz.description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            yield from schema.get("properties", {})

    def call(self, drawn: tuple[list[int], Any]) -> None:
        """With a case that was drawn."""
        choices, case = drawn
        case.path_parameters = self._with_known(case.path_parameters, choices[:4], NASTY)
        case.query = self._with_known(case.query, choices[2:6], NASTY)
        case.body = self._with_known(case.body, choices[3:7], NASTY_IN_BODIES)
        is_team = choices[7] % 10 < TEAM_KEYS_IN_TEN
        self._send(case, self.seeds.team_key if is_team else self.seeds.project_key)

    def _send(self, case: Any, headers: Mapping[str, str]) -> None:
        response = case.call(base_url=self.fuzz.base_url, session=self.session, headers=dict(headers))
        self.tally.note(response.status_code)
        try:
            case.validate_response(response, checks=CHECKS, headers=dict(headers))
        except FailureGroup as group:
            for failure in group.exceptions:
                if len(self.tally.failures) < FAILURES_KEPT:
                    message = f"{self.tally.label}: {response.status_code} {group}"
                    self.tally.failures.setdefault(f"{failure.title} {response.status_code}", message)

    def _with_known(self, value: Any, choices: list[int], nasty: Sequence[str] = (), depth: int = 3) -> Any:
        """`value` with most of its ids replaced by those of things that are there, and some texts by nasty ones."""
        if isinstance(value, list) and depth:
            return [self._with_known(item, choices[1:] + choices[:1], nasty, depth - 1) for item in value]
        if not isinstance(value, dict) or not depth:
            return value
        made: Json = {}
        for place, (name, inner) in enumerate(value.items()):
            choice, known = choices[place % len(choices)], self.seeds.ids.get(name)
            if known and isinstance(inner, str) and choice % 10 < KNOWN_IDS_IN_TEN:
                made[name] = known[choice // 10 % len(known)]
            elif nasty and isinstance(inner, str | int | float) and choice % 10 == NASTY_DIGIT:
                made[name] = nasty[choice // 10 % len(nasty)]
            else:
                made[name] = self._with_known(inner, choices, nasty, depth - 1)
        return made
