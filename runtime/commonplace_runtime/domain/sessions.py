"""A session on its way in: checked, cleaned of what must not be stored, and named so that it is one session."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import TypedDict

from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.platforms import normalise_platform
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue, type_name, wrong_type


@dataclass(frozen=True, kw_only=True)
class GivenSession:
    """One start of a session as its client meant it. `metadata` may hold the client's `prompt` and `project`."""

    project: str | None
    external_session_id: str | None
    content_session_id: str | None
    agent_id: str | None
    agent_type: str | None
    platform: str | None
    metadata: dict[str, Json]


class NewSessionRow(TypedDict):
    """One start on its way into `start_session_v1`."""

    id: str
    identity: str | None
    project: str | None
    externalSessionId: str | None
    contentSessionId: str | None
    agentId: str | None
    agentType: str | None
    platformSource: str | None
    metadata: Json


class SessionRow(TypedDict):
    """A session as it is stored and answered."""

    id: str
    projectId: str
    teamId: str
    externalSessionId: str | None
    contentSessionId: str | None
    agentId: str | None
    agentType: str | None
    platformSource: str | None
    generationStatus: str
    metadata: dict[str, Json]
    startedAtEpoch: int
    endedAtEpoch: int | None
    lastGeneratedAtEpoch: int | None
    createdAtEpoch: int
    updatedAtEpoch: int


@dataclass(frozen=True, kw_only=True)
class CleanSession:
    """A start that may be stored, and how many secrets of which pattern were taken out of its metadata."""

    row: NewSessionRow
    secrets: Mapping[str, int]


def read_session(body: object) -> GivenSession:
    """One start from a body; a null counts as absent, but for `metadata`. Raises InvalidFields with all its faults."""
    issues: list[Issue] = []
    fields = Fields(body, issues)
    metadata = fields.value("metadata")
    if fields.has("metadata") and not isinstance(metadata, dict):
        issues.append(wrong_type(("metadata",), "record", type_name(metadata)))
    platform = fields.text("platformSource")
    session = GivenSession(
        project=fields.text("projectId"),
        external_session_id=fields.text("externalSessionId"),
        content_session_id=fields.text("contentSessionId"),
        agent_id=fields.text("agentId"),
        agent_type=fields.text("agentType"),
        platform=normalise_platform(platform),
        metadata=metadata if isinstance(metadata, dict) else {},
    )
    if issues:
        raise InvalidFields(issues)
    return session


def identity_of(session: GivenSession) -> str | None:
    """
    What makes two starts one session, inside a project: SHA-256, hexadecimal. None: nothing does.

    The client's own id on its platform; else the conversation it names, by agent; else the agent itself.
    """
    if session.external_session_id is not None:
        parts = ["external", session.platform, session.external_session_id]
    elif session.content_session_id is not None:
        parts = ["content", session.platform, session.agent_id, session.content_session_id]
    elif session.agent_id is not None and session.platform is not None:
        parts = ["agent", session.platform, session.agent_id, session.agent_type]
    else:
        return None
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def clean_session(session: GivenSession, session_id: str) -> CleanSession:
    """Strip private parts and secrets, the prompt's too, then name the session. `session_id`: a fresh id."""
    metadata = redact(session.metadata)
    row: NewSessionRow = {
        "id": session_id,
        "identity": identity_of(session),
        "project": storable(session.project),
        "externalSessionId": storable(session.external_session_id),
        "contentSessionId": storable(session.content_session_id),
        "agentId": storable(session.agent_id),
        "agentType": storable(session.agent_type),
        "platformSource": storable(session.platform),
        "metadata": metadata.value,
    }
    return CleanSession(row=row, secrets=metadata.secrets)
