"""
A random walk of two teams over HTTP and MCP, and what must hold for every answer on the way.

The teams are as alike as two teams can be: projects, actors, sessions and source ids have the same names in both. What
differs are the ids, which each takes from the other as well, and one word in everything that a team writes; a
private memory has a word of its actor besides.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal, TypeAlias

import httpx2
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.factories import make_event

Name: TypeAlias = Literal["red", "blue"]
TEAMS: Final[tuple[Name, Name]] = ("red", "blue")
MARKERS: Final[Mapping[Name, str]] = {"red": "zinnoberworte", "blue": "azurwellenwort"}
ACTORS: Final = ("human:ann", "human:bob")
HOLDERS: Final = ("ann", "ann", "bob", "bob", "bound", "sibling", "reader", "bound_reader", "admin")
NOBODY: Final = "01890000-0000-7000-8000-000000000000"
KINDS: Final = ("memory", "event", "session", "job", "key", "project", "team")
_IDS: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?:evt|sum)_[0-9a-f]{64}|team-[0-9a-f]{8}")
_TOKENS: Final = re.compile(r"cm_[0-9A-Za-z_]{40,}")


def private_marker(team: Name, actor: str) -> str:
    """The word in the private memories of an actor."""
    return f"{MARKERS[team]}privat{actor.removeprefix('human:')}"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Whoever holds a key."""

    team: Name
    actor: str
    token: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where the walk takes place. `ids`: of the kinds that are there from the start."""

    url: str
    holders: Mapping[tuple[Name, str], Holder]
    ids: Mapping[Name, Mapping[str, Sequence[str]]]
    secrets: Mapping[Name, Sequence[str]]
    """Ids and slugs that belong to a team and are of no kind that is asked for."""
    keep: Callable[[bool], None]
    """Merges what waits of the search indexes; or has them built anew, and leaves them so."""


@dataclass(kw_only=True)
class Known:
    """What a team has been told, or has said, so far."""

    ids: dict[str, list[str]]
    owned: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    """Ids of the other team that it named itself: its own audit may tell that it did."""
    brought: set[str] = field(default_factory=set)
    """Those among them that it imported as names of its own rows: any of its answers may have them."""


reached: Counter[str] = Counter()
"""Operations that were answered 2xx, over all walks: a walk that gets nowhere proves nothing."""

callers = st.tuples(st.sampled_from(TEAMS), st.sampled_from(HOLDERS))
numbers = st.integers(0, 1_000_000)
mostly_own = st.sampled_from((False, False, False, True))
either = st.booleans()


class TwoTeams(RuleBasedStateMachine):
    """The walk. `stage` makes two fresh teams."""

    stage: Callable[[], Stage]

    def __init__(self) -> None:
        super().__init__()
        self.scene = type(self).stage()
        self.http = httpx2.Client(base_url=self.scene.url, timeout=30)
        self.known = {
            team: Known(ids={kind: list(self.scene.ids[team].get(kind, ())) for kind in KINDS}) for team in TEAMS
        }
        self.tokens = {holder.token for holder in self.scene.holders.values()}
        self.numbers = count()
        for team in TEAMS:
            self.known[team].owned |= {one for ids in self.scene.ids[team].values() for one in ids}
            self.known[team].owned |= set(self.scene.secrets[team])

    def teardown(self) -> None:
        self.http.close()

    # What is asked, and what must hold for each answer

    def ask(
        self,
        name: str,
        who: tuple[Name, str],
        method: str,
        path: str,
        body: Any = None,
        *,
        refers: Sequence[str] = (),
        lines: str | None = None,
    ) -> Any:
        """The answer's JSON, None unless it is a 2xx. refers: ids in the question, whoever's."""
        holder = self.scene.holders[who]
        known, others = self.known[holder.team], self.known[_other(holder.team)]
        foreign = {one for one in refers if one in others.owned}
        known.named |= foreign
        if name == "import":
            known.brought |= foreign
        headers = {"Authorization": f"Bearer {holder.token}"}
        if lines is not None:
            headers["Content-Type"] = "application/x-ndjson"
            answer = self.http.request(method, path, headers=headers, content=lines.encode())
        else:
            answer = self.http.request(method, path, headers=headers, **({} if body is None else {"json": body}))
        text = f"{answer.text}\n{answer.headers}"
        said = f"{name}: {method} {path} by {who} -> {answer.status_code} {answer.text[:600]}"
        allowed = known.named if name == "audit" else known.brought | foreign
        self.check(holder, text, allowed=allowed, said=said)
        assert answer.status_code < 500, said
        if foreign and answer.is_success and name.startswith(("get", "patch", "delete", "end", "retry", "cancel")):
            raise AssertionError(f"another team's id opened something: {said}")
        if not answer.is_success:
            return None
        reached[name] += 1
        known.owned |= set(_IDS.findall(text)) - others.owned - {NOBODY}
        if not answer.headers.get("content-type", "").startswith("application/json"):
            return answer.text
        return answer.json()

    def check(self, holder: Holder, text: str, *, allowed: set[str], said: str) -> None:
        """No id, word or token of the other team, and no private word of another actor."""
        other = _other(holder.team)
        leaked = set(_IDS.findall(text)) & self.known[other].owned - allowed
        assert not leaked, f"ids of the other team: {leaked} in {said}"
        lowered = text.lower()
        assert MARKERS[other] not in lowered, f"a word of the other team in {said}"
        for actor in ACTORS:
            if actor != holder.actor:
                assert private_marker(holder.team, actor) not in lowered, f"a private word of {actor} in {said}"
        shown = set(_TOKENS.findall(text)) & self.tokens
        assert not shown, f"a token in {said}"

    def text(self, who: tuple[Name, str], *, private: bool = False) -> str:
        holder = self.scene.holders[who]
        word = private_marker(holder.team, holder.actor) if private else MARKERS[holder.team]
        return f"deploy note {next(self.numbers)} about shared.py {word}"

    def one(self, who: tuple[Name, str], kind: str, number: int, foreign: bool) -> str:
        """An id of that kind: the caller's team's, or the other's."""
        team = _other(who[0]) if foreign else who[0]
        ids = self.known[team].ids[kind]
        # The newest ones most often: many of the older are gone.
        return ids[-1 - number % min(len(ids), 4 if number % 3 else 40)] if ids else NOBODY

    def project(self, who: tuple[Name, str], number: int, foreign: bool) -> str:
        """An id, or a name that both teams have."""
        if foreign or number % 3:
            return self.one(who, "project", number, foreign)
        return ("default", "sibling")[number % 2]

    def learn(self, who: tuple[Name, str], kind: str, one: str) -> None:
        ids = self.known[who[0]].ids[kind]
        if one not in ids:
            ids.append(one)

    @initialize()
    def both_have_something(self) -> None:
        for team in TEAMS:
            for holder, project in (("ann", "default"), ("bob", "sibling")):
                who = (team, holder)
                self.write_event(who, project, 0)
                self.write_event(who, project, 1)
                self.write_memory(who, project, private=False)
                self.write_memory(who, project, private=True)
                self.begin_session(who, project, 0)
                self.replace_and_delete(who)

    def replace_and_delete(self, who: tuple[Name, str]) -> None:
        old = self.ask(
            "create_memory", who, "POST", "/v1/memories", {"projectId": "default", "content": self.text(who)}
        )
        path = f"/v1/memories/{old['memory']['id']}/supersede"
        new = self.ask("supersede_memory", who, "POST", path, {"content": self.text(who)})
        for memory in (old["memory"]["id"], new["memory"]["id"]):
            self.learn(who, "memory", memory)
        self.ask("delete_memory", who, "DELETE", f"/v1/memories/{new['memory']['id']}")

    @rule(anew=mostly_own)
    def keep_indexes(self, anew: bool) -> None:
        """What was asked before is asked again of an index in another state."""
        self.scene.keep(anew)
        reached["index_built_anew" if anew else "index_merged"] += 1

    # Capture

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def create_event(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        self.write_event(who, self.project(who, number, foreign), number)

    def write_event(self, who: tuple[Name, str], project: str, number: int) -> None:
        event = make_event(
            projectId=project,
            contentSessionId=f"session-{number % 3}",
            payload={"text": self.text(who), "tool_input": {"file_path": "/src/shared.py"}},
            metadata={"note": self.text(who)},
            **({"sourceEventId": f"source-{number % 4}"} if number % 2 else {}),
        )
        generate = "true" if number % 3 else "false"
        path = f"/v1/events?generate={generate}"
        self.learn_event(who, self.ask("create_event", who, "POST", path, event, refers=[project]))

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def create_event_in_a_session(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        session, project = self.one(who, "session", number, foreign), self.project(who, number, False)
        event = make_event(projectId=project, serverSessionId=session, payload={"text": self.text(who)})
        answer = self.ask("create_event_in_a_session", who, "POST", "/v1/events", event, refers=[session])
        assert not (foreign and session != NOBODY and answer), "linked to the other team's session"
        self.learn_event(who, answer)

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def create_batch(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        projects = [self.project(who, number, False), self.project(who, number + 1, foreign)]
        events = [make_event(projectId=project, payload={"text": self.text(who)}) for project in projects]
        answer = self.ask("create_batch", who, "POST", "/v1/events/batch", events, refers=projects)
        for item in (answer or {}).get("events", ()):
            self.learn_event(who, item)

    def learn_event(self, who: tuple[Name, str], answer: Any) -> None:
        if answer:
            self.learn(who, "event", answer["event"]["id"])
            if answer.get("generationJob"):
                self.learn(who, "job", answer["generationJob"]["id"])

    @rule(who=callers, number=numbers, foreign=either)
    def get_event(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        event = self.one(who, "event", number, foreign)
        self.ask("get_event", who, "GET", f"/v1/events/{event}", refers=[event])
        self.ask("get_event_observations", who, "GET", f"/v1/events/{event}/observations", refers=[event])

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def start_session(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        self.begin_session(who, self.project(who, number, foreign), number)

    def begin_session(self, who: tuple[Name, str], project: str, number: int) -> None:
        body: dict[str, Any] = {
            "projectId": project,
            "contentSessionId": f"session-{number % 3}",
            "platformSource": "claude",
            "metadata": {"prompt": self.text(who), "project": "repo"},
        }
        if number % 2:
            body["externalSessionId"] = f"session-{number % 3}"
        answer = self.ask("start_session", who, "POST", "/v1/sessions/start", body, refers=[project])
        if answer:
            self.learn(who, "session", answer["session"]["id"])

    @rule(who=callers, number=numbers, foreign=either, ends=either)
    def get_or_end_session(self, who: tuple[Name, str], number: int, foreign: bool, ends: bool) -> None:
        session = self.one(who, "session", number, foreign)
        self.ask("get_session", who, "GET", f"/v1/sessions/{session}", refers=[session])
        if ends:
            answer = self.ask("end_session", who, "POST", f"/v1/sessions/{session}/end", {}, refers=[session])
            if answer:
                self.learn(who, "job", answer["generationJob"]["id"])

    @rule(who=st.tuples(st.sampled_from(TEAMS), st.sampled_from(("bound", "sibling", "ann"))), number=numbers)
    def compat_capture(self, who: tuple[Name, str], number: int) -> None:
        body = {"contentSessionId": f"session-{number % 3}", "tool_name": "Read", "tool_response": self.text(who)}
        answer = self.ask("compat_observation", who, "POST", "/api/sessions/observations", body)
        if answer:
            self.learn(who, "event", answer["eventId"])
            self.learn(who, "session", answer["serverSessionId"])
        self.ask("compat_summarize", who, "POST", "/api/sessions/summarize", {"contentSessionId": "session-1"})

    # Memories

    @rule(who=callers, number=numbers, foreign=mostly_own, private=either)
    def create_memory(self, who: tuple[Name, str], number: int, foreign: bool, private: bool) -> None:
        self.write_memory(who, self.project(who, number, foreign), private=private)

    def write_memory(self, who: tuple[Name, str], project: str, *, private: bool) -> None:
        body: dict[str, Any] = {
            "projectId": project,
            "content": self.text(who, private=private),
            "title": self.text(who, private=private),
            "tags": ["shared"],
            "filesModified": ["/src/shared.py"],
        }
        if private:
            body["visibility"] = "private"
        answer = self.ask("create_memory", who, "POST", "/v1/memories", body, refers=[project])
        if answer:
            self.learn(who, "memory", answer["memory"]["id"])

    @rule(who=callers, number=numbers, foreign=either)
    def get_memory(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        memory = self.one(who, "memory", number, foreign)
        self.ask("get_memory", who, "GET", f"/v1/memories/{memory}", refers=[memory])
        self.ask("get_observation", who, "GET", f"/v1/observations/{memory}", refers=[memory])

    @rule(who=callers, number=numbers, foreign=either)
    def list_memories(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        project, session = self.project(who, number, foreign), self.one(who, "session", number, foreign)
        for query in (
            f"projectId={project}",
            f"serverSessionId={session}",
            f"tag=shared&actor={ACTORS[number % 2]}",
            f"visibility=private&includeSuperseded=true&limit={1 + number % 3}",
        ):
            page = self.ask("list_memories", who, "GET", f"/v1/memories?{query}", refers=[project, session])
            if page and page.get("nextCursor"):
                self.ask("list_memories", who, "GET", f"/v1/memories?{query}&cursor={page['nextCursor']}")

    @rule(who=callers, thief=st.sampled_from(HOLDERS), number=numbers)
    def list_memories_by_the_others_cursor(self, who: tuple[Name, str], thief: str, number: int) -> None:
        page = self.ask("list_memories", who, "GET", "/v1/memories?limit=1")
        if page and page.get("nextCursor"):
            self.ask("list_memories", (_other(who[0]), thief), "GET", f"/v1/memories?cursor={page['nextCursor']}")

    @rule(who=callers, number=numbers, foreign=either)
    def patch_memory(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        memory, session = self.one(who, "memory", number, foreign), self.one(who, "session", number, not foreign)
        body = {"content": self.text(who), "title": self.text(who), "tags": ["shared", "changed"]}
        self.ask("patch_memory", who, "PATCH", f"/v1/memories/{memory}", body, refers=[memory])
        own = self.one(who, "memory", number, False)
        into = {"serverSessionId": session}
        done = self.ask("change_session", who, "PATCH", f"/v1/memories/{own}", into, refers=[session])
        assert not (done and session in self.known[_other(who[0])].owned), "moved into the other team's session"

    @rule(who=callers, number=numbers, foreign=mostly_own, foreign_by=mostly_own)
    def supersede_memory(self, who: tuple[Name, str], number: int, foreign: bool, foreign_by: bool) -> None:
        memory, by = self.one(who, "memory", number, foreign), self.one(who, "memory", number + 1, foreign_by)
        path = f"/v1/memories/{memory}/supersede"
        if number % 2:
            done = self.ask("supersede_by", who, "POST", path, {"by": by}, refers=[memory, by])
            assert not (done and (foreign or foreign_by) and NOBODY not in (memory, by)), "superseded across teams"
            return
        done = self.ask("supersede_memory", who, "POST", path, {"content": self.text(who)}, refers=[memory])
        assert not (done and foreign and memory != NOBODY), "superseded across teams"

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def delete_memory(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        memory = self.one(who, "memory", number, foreign)
        self.ask("delete_memory", who, "DELETE", f"/v1/memories/{memory}", refers=[memory])

    @rule(who=callers, number=numbers, foreign=mostly_own, dry_run=st.sampled_from((True, True, False)))
    def forget(self, who: tuple[Name, str], number: int, foreign: bool, dry_run: bool) -> None:
        selections: tuple[dict[str, Any], ...] = (
            {"memoryId": self.one(who, "memory", number, foreign)},
            {"serverSessionId": self.one(who, "session", number, foreign)},
            {"contentSessionId": "session-1"},
            {"file": "shared.py"},
            {"query": "deploy note", "projectId": self.project(who, number, foreign), "limit": 2},
            {"projectId": self.project(who, number, foreign)},
        )
        chosen = selections[number % (6 if dry_run else 5)]
        refers = [one for one in chosen.values() if isinstance(one, str)]
        answer = self.ask("forget", who, "POST", "/v1/forget", {**chosen, "dryRun": dry_run}, refers=refers)
        if answer and foreign:
            hit = any(one in self.known[_other(who[0])].owned for one in refers)
            assert not (hit and any(answer["counts"].values())), f"forgot the other team's: {answer}"

    @rule(who=callers, number=numbers, foreign=either)
    def purge_project(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        if not foreign and number % 4:
            return
        project = self.one(who, "project", number, foreign)
        self.ask("delete_project_memory", who, "DELETE", f"/v1/projects/{project}/memory", refers=[project])

    # Recall

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def search(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        project = self.project(who, number, foreign)
        for body in ({"query": "deploy note shared.py"}, {"query": "deploy", "platformSource": "claude", "limit": 100}):
            self.ask("search", who, "POST", "/v1/search", {"projectId": project, **body}, refers=[project])
        for more in ({"query": "deploy note"}, {}):
            self.ask(
                "context", who, "POST", "/v1/context", {"projectId": project, "limit": 50, **more}, refers=[project]
            )

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def mcp_recall(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        project = self.project(who, number, foreign)
        for tool, arguments in (("search", {"query": "deploy note"}), ("context", {}), ("recent", {"limit": 100})):
            self.call(who, "/v1/mcp", tool, {"projectId": project, **arguments}, refers=[project])
        for tool, arguments in (
            ("memory_search", {"query": "deploy note"}),
            ("memory_context", {}),
            ("memory_list_recent", {}),
        ):
            self.call(who, "/v1/mcp/memory", tool, {"projectId": project, **arguments}, refers=[project])

    @rule(who=callers, number=numbers, foreign=mostly_own, private=either)
    def mcp_write(self, who: tuple[Name, str], number: int, foreign: bool, private: bool) -> None:
        project, older = self.project(who, number, foreign), self.one(who, "memory", number, foreign)
        body: dict[str, Any] = {"projectId": project, "content": self.text(who, private=private)}
        if private:
            body["visibility"] = "private"
        self.call(who, "/v1/mcp/memory", "memory_add", body, refers=[project])
        decision = {"projectId": "default", "decision": self.text(who), "supersedes": older}
        done = self.call(who, "/v1/mcp/memory", "memory_record_decision", decision, refers=[older])
        assert not (done and older in self.known[_other(who[0])].owned), "superseded across teams"

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def mcp_forget(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        selections = (
            {"memoryId": self.one(who, "memory", number, foreign)},
            {"session": self.one(who, "session", number, foreign)},
            {"file": "shared.py", "projectId": self.project(who, number, foreign)},
            {"query": "deploy note", "projectId": self.project(who, number, foreign)},
        )
        chosen = selections[number % 4]
        self.call(who, "/v1/mcp/memory", "memory_forget", chosen, refers=list(chosen.values()))

    def call(
        self, who: tuple[Name, str], path: str, tool: str, arguments: Mapping[str, Any], *, refers: Sequence[str]
    ) -> Any:
        """The result's JSON; None for an error."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        answer = self.ask(f"mcp_{tool}", who, "POST", path, message, refers=refers)
        if not answer or "result" not in answer or answer["result"].get("isError"):
            return None
        found = json.loads(answer["result"]["content"][0]["text"])
        reached[f"mcp_{tool}_worked"] += 1
        if "memory" in found:
            self.learn(who, "memory", found["memory"]["id"])
        return found

    @rule(who=callers, number=numbers)
    def worker_reads(self, who: tuple[Name, str], number: int) -> None:
        for name, path in (
            ("context_inject", "/api/context/inject?projects=default,sibling,repo&platformSource=claude"),
            ("worker_search", "/api/search?query=deploy+note&project=default"),
            ("worker_timeline", "/api/timeline?query=deploy&project=sibling"),
            ("by_file", "/api/observations/by-file?path=/src/shared.py&path=shared.py&projects=default&limit=40"),
        ):
            self.ask(name, who, "GET", path)
        body = {"ids": list(range(number % 50, number % 50 + 100))}
        self.ask("worker_batch", who, "POST", "/api/observations/batch", body)

    @rule(who=callers, foreign=either, number=numbers)
    def worker_batch(self, who: tuple[Name, str], foreign: bool, number: int) -> None:
        memory = self.one(who, "memory", number, foreign)
        self.ask("worker_batch", who, "POST", "/api/observations/batch", {"ids": [memory]}, refers=[memory])

    # Jobs, projects, keys, audit, usage

    @rule(who=callers, number=numbers, foreign=either)
    def jobs(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        job, project = self.one(who, "job", number, foreign), self.project(who, number, foreign)
        team = self.one(who, "team", 0, foreign)
        self.ask("get_job", who, "GET", f"/v1/jobs/{job}", refers=[job])
        self.ask("list_jobs", who, "GET", f"/v1/jobs?projectId={project}&limit=200", refers=[project])
        self.ask("list_jobs_with_payload", who, "GET", "/v1/jobs?include=payload&limit=200")
        self.ask("get_project_jobs", who, "GET", f"/v1/projects/{project}/jobs", refers=[project])
        self.ask("get_team_jobs", who, "GET", f"/v1/teams/{team}/jobs", refers=[team])

    @rule(who=callers, number=numbers, foreign=either)
    def operate_jobs(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        job, project = self.one(who, "job", number, foreign), self.project(who, number, foreign)
        self.ask("cancel_job", who, "POST", f"/v1/jobs/{job}/cancel", {}, refers=[job])
        self.ask("retry_job", who, "POST", f"/v1/jobs/{job}/retry", {}, refers=[job])
        body = {"projectId": project, "status": "cancelled"}
        self.ask("bulk_retry", who, "POST", "/v1/jobs/retry", body, refers=[project])

    @rule(who=callers, number=numbers, foreign=either)
    def projects(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        project = self.project(who, number, foreign)
        self.ask("list_projects", who, "GET", "/v1/projects")
        self.ask("get_project", who, "GET", f"/v1/projects/{project}", refers=[project])
        body = {"name": f"extra-{number % 2}", "rootPath": f"/src/{MARKERS[who[0]]}", "metadata": {"n": self.text(who)}}
        made = self.ask("create_project", who, "POST", "/v1/projects", body) if number % 5 == 0 else None
        if made:
            self.learn(who, "project", made["project"]["id"])

    @rule(who=callers, number=numbers, foreign=either)
    def keys(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        key = self.one(who, "key", number, foreign)
        self.ask("list_keys", who, "GET", "/v1/keys")
        minted = self.ask("mint_key", who, "POST", "/v1/keys", {"label": f"{MARKERS[who[0]]} {number}"})
        if minted:
            self.tokens.add(minted["apiKey"])
            self.learn(who, "key", minted["id"])
        if foreign and key != NOBODY:
            self.ask("delete_key", who, "DELETE", f"/v1/keys/{key}", refers=[key])
        elif minted and number % 2:
            self.ask("revoke_key", who, "DELETE", f"/v1/keys/{minted['id']}")

    @rule(who=callers, number=numbers, foreign=either)
    def audit(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        project, key = self.project(who, number, foreign), self.one(who, "key", number, foreign)
        target = self.one(who, "memory", number, foreign)
        for query in (
            f"projectId={project}",
            "projectId=*&limit=200",
            f"projectId=*&keyId={key}",
            f"projectId=*&targetId={target}",
            f"projectId=*&actor={ACTORS[number % 2]}&action=memory.*",
        ):
            self.ask("audit", who, "GET", f"/v1/audit?{query}", refers=[project, key, target])

    @rule(who=callers)
    def usage_and_connect(self, who: tuple[Name, str]) -> None:
        self.ask("usage", who, "GET", "/v1/usage")
        self.ask("connect", who, "GET", "/v1/connect")

    # Transfer

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def export(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        project = self.project(who, number, foreign)
        text = self.ask(
            "export",
            who,
            "GET",
            f"/v1/export?projectId={project}&include=memories,sources,events,sessions",
            refers=[project],
        )
        if text and number % 2:
            self.ask("import", who, "POST", "/v1/import", lines=text)

    @rule(who=callers, thief=st.sampled_from(HOLDERS))
    def export_by_the_others_cursor(self, who: tuple[Name, str], thief: str) -> None:
        text = self.ask("export", who, "GET", "/v1/export")
        cursors = [line["cursor"] for line in map(json.loads, (text or "").splitlines()) if line.get("cursor")]
        if cursors:
            self.ask("export", (_other(who[0]), thief), "GET", f"/v1/export?cursor={cursors[-1]}")

    @rule(who=callers, number=numbers, foreign=mostly_own)
    def import_lines(self, who: tuple[Name, str], number: int, foreign: bool) -> None:
        memory, event = self.one(who, "memory", number, foreign), self.one(who, "event", number, foreign)
        session = self.one(who, "session", number, foreign)
        lines = [
            {"type": "header", "format": "commonplace", "version": 1},
            {"type": "session", "id": session, "project": "default", "contentSessionId": "session-1"},
            {"type": "event", "id": event, "project": "default", "eventType": "x", "session": session, "payload": {}},
            {
                "type": "memory",
                "id": memory,
                "project": "default",
                "content": self.text(who),
                "session": session,
                "supersededBy": event,
                "sources": [{"sourceType": "agent_event", "sourceId": event}],
            },
        ]
        text = "\n".join(json.dumps(line) for line in lines)
        self.ask("import", who, "POST", "/v1/import", lines=text, refers=[memory, event, session])


def _other(team: Name) -> Name:
    return "blue" if team == "red" else "red"


EXPECTED: Final = frozenset(
    {
        *("create_event", "create_event_in_a_session", "create_batch", "get_event", "get_event_observations"),
        *("start_session", "get_session", "end_session", "compat_observation", "compat_summarize"),
        *("create_memory", "get_memory", "get_observation", "list_memories", "patch_memory", "supersede_memory"),
        *("delete_memory", "forget", "search", "context", "get_job", "list_jobs", "list_jobs_with_payload"),
        *("get_project_jobs", "get_team_jobs", "cancel_job", "retry_job", "bulk_retry", "list_projects"),
        *("get_project", "create_project", "list_keys", "mint_key", "audit", "usage", "connect", "export", "import"),
        *("mcp_search_worked", "mcp_context_worked", "mcp_recent_worked", "mcp_memory_add_worked"),
        *("mcp_memory_search_worked", "mcp_memory_list_recent_worked", "mcp_memory_forget_worked"),
        *("context_inject", "worker_search", "worker_timeline", "by_file", "worker_batch", "revoke_key"),
        *("index_merged", "index_built_anew"),
    }
)
"""What a walk of the usual length must have been answered with a 2xx at least once."""

WALKS: Final = int(os.environ.get("TWO_TEAMS_WALKS", "14"))
STEPS: Final = int(os.environ.get("TWO_TEAMS_STEPS", "30"))
IS_USUAL: Final = not {"TWO_TEAMS_WALKS", "TWO_TEAMS_STEPS"} & os.environ.keys()
"""Nobody asked for another length: the walks are those of every `make test`."""
