"""What the handlers work with, made by the composition and found on the app."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

from starlette.requests import Request

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import Principal, Reach
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.ids import utc_now
from commonplace_runtime.services.doorbell import Doorbell
from commonplace_runtime.services.jobs import JobNotices
from commonplace_runtime.services.watch_queue import LaneBoard
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import Pool


@dataclass(kw_only=True)
class ApiState:
    """One per app. `pool` is there once the app's lifespan has begun."""

    settings: Settings
    doorbell: Doorbell
    has_doorbell: bool
    notices: JobNotices
    operations: Sequence[Operation] = ()
    given_pool: Pool | None = None
    lanes: LaneBoard = field(default_factory=LaneBoard)
    now: Callable[[], datetime] = utc_now
    started_at: datetime = field(default_factory=utc_now)
    description: bytes | None = None
    """The OpenAPI document of `operations`, once somebody asked for it."""

    @property
    def pool(self) -> Pool:
        """The connections. Raises Unavailable before the lifespan began."""
        if self.given_pool is None:
            raise Unavailable("the database pool is not open yet")
        return self.given_pool


def state_of(request: Request) -> ApiState:
    """The app's state."""
    state: ApiState = request.app.state.api
    return state


def request_id_of(request: Request) -> str:
    """The id of this request, as the envelope has chosen it."""
    state = request.scope.setdefault("state", {})
    if "request_id" not in state:
        state["request_id"] = str(uuid4())
    found: str = state["request_id"]
    return found


def reach_of(request: Request, principal: Principal) -> Reach:
    """What the holder of the request's key reaches, and how audit names this request."""
    return Reach.of(principal, request_id_of(request))
