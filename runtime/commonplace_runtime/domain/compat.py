"""What claude-mem's older hooks send to their worker, read as our sessions and events."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from commonplace_runtime.domain.events import GivenEvent
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.platforms import normalise_platform
from commonplace_runtime.domain.sessions import GivenSession
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue, type_name, wrong_type

ADAPTER: Final = "claude-code-compat"
_PLATFORM: Final = "claude"


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """One use of a tool, and the session that it belongs to."""

    session: GivenSession
    event: GivenEvent


@dataclass(frozen=True, kw_only=True)
class TurnEnd:
    """The end of a turn. `message`: what the assistant said last, as an event; None where nothing came with it."""

    session: GivenSession
    message: GivenEvent | None
    is_subagent: bool


def read_tool_use(body: object, *, now_ms: int) -> ToolUse:
    """A body of /api/sessions/observations. Raises InvalidFields with all its faults."""
    issues: list[Issue] = []
    given = _Given(body, issues)
    session_id, tool_name = given.required("contentSessionId"), given.required("tool_name")
    platform = given.platform()
    snake, camel = given.optional("tool_use_id"), given.optional("toolUseId")
    payload: dict[str, Json] = {
        "contentSessionId": session_id,
        "tool_name": tool_name,
        "tool_input": given.value("tool_input"),
        "tool_response": given.value("tool_response"),
        "cwd": given.optional("cwd"),
        "platformSource": platform,
        "agentId": given.optional("agentId"),
        "agentType": given.optional("agentType"),
        "toolUseId": snake or camel or None,
    }
    if issues:
        raise InvalidFields(issues)
    event = _event("tool_use", session_id, platform, payload, "sessions/observations", now_ms)
    return ToolUse(session=_session(session_id, platform), event=event)


def read_turn_end(body: object, *, now_ms: int) -> TurnEnd:
    """A body of /api/sessions/summarize. Raises InvalidFields with all its faults."""
    issues: list[Issue] = []
    given = _Given(body, issues)
    session_id, platform = given.required("contentSessionId"), given.platform()
    said, agent_id = given.optional("last_assistant_message"), given.optional("agentId")
    if issues:
        raise InvalidFields(issues)
    message = None
    if said is not None and said.strip():
        payload: dict[str, Json] = {"last_assistant_message": said, "platformSource": platform}
        message = _event("assistant_message", session_id, platform, payload, "sessions/summarize", now_ms)
    return TurnEnd(session=_session(session_id, platform), message=message, is_subagent=bool(agent_id))


class _Given:
    """Fields as these two routes take them: an optional string may be empty, and null is not a string."""

    def __init__(self, body: object, issues: list[Issue]) -> None:
        self._fields = Fields(body, issues)
        self._given: Mapping[str, Json] = body if isinstance(body, dict) else {}
        self._issues = issues

    def required(self, name: str) -> str:
        return self._fields.text(name, required=True) or ""

    def optional(self, name: str) -> str | None:
        if name not in self._given:
            return None
        value = self._given[name]
        if isinstance(value, str):
            return value
        self._issues.append(wrong_type((name,), "string", type_name(value)))
        return None

    def value(self, name: str) -> Json:
        return self._given.get(name)

    def platform(self) -> str:
        return normalise_platform(self.optional("platformSource")) or _PLATFORM


def _session(session_id: str, platform: str) -> GivenSession:
    return GivenSession(
        project=None,
        external_session_id=session_id,
        content_session_id=session_id,
        agent_id=None,
        agent_type=None,
        platform=platform,
        metadata={},
    )


def _event(
    event_type: str, session_id: str, platform: str, payload: dict[str, Json], route: str, now_ms: int
) -> GivenEvent:
    return GivenEvent(
        project=None,
        source_type=ADAPTER,
        event_type=event_type,
        occurred_at_ms=now_ms,
        # The hook names no time for what was said: the same words in a session, sent again, are the same event.
        is_dated=event_type == "tool_use",
        server_session_id=None,
        content_session_id=session_id,
        platform_given=True,
        platform=platform,
        source_event_id=None,
        payload=payload,
        metadata={"compat": route},
    )
