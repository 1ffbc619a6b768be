"""How far a project's search index is, as the database says it."""

from typing import Final, Literal

from typing_extensions import TypedDict

PATH: Final = "/v1/reindex"


class IndexState(TypedDict):
    """
    The index of one project.

    status: `idle`, it is kept; `queued`, it is to be built anew; `rebuilding`. indexed: of the `memories`, those that
    the rebuild has come to; all of them when idle. queuedAtEpoch: None when idle.
    """

    projectId: str
    status: Literal["idle", "queued", "rebuilding"]
    memories: int
    indexed: int
    queuedAtEpoch: int | None


class IndexOfTeam(IndexState):
    """The same as an administrator is told of it. team: its slug, project: its name."""

    teamId: str
    team: str
    project: str


class RebuildQueued(TypedDict):
    """A project whose index is going to be built anew, or is at it. statusPath: a GET there says how far it is."""

    projectId: str
    memories: int
    status: Literal["queued"]
    statusPath: str


def queued(state: IndexState) -> RebuildQueued:
    """What whoever asked for a rebuild is told, the same however often they ask until it is done."""
    return {
        "projectId": state["projectId"],
        "memories": state["memories"],
        "status": "queued",
        "statusPath": f"{PATH}?projectId={state['projectId']}",
    }
