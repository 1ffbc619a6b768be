"""
What went wrong, sorted by who must act.

Time heals `Unavailable`; the author of an object heals `Refused` and its kin; `Superseded` asks this
process to stop writing; everything else is ours. No message here ever carries a token.
"""


class OperatorError(Exception):
    """Base of all errors of the operator; `str(error)` is safe to log and to show."""


class Unavailable(OperatorError):
    """The other side did not answer, or asked us to come back later: try again."""


class ClusterUnavailable(Unavailable):
    """The Kubernetes API did not answer in time, or refused for overload."""


class DatabaseUnavailable(Unavailable):
    """Postgres did not answer in time, is starting, or has no connection left."""


class NotFound(OperatorError):
    """The Kubernetes object does not exist."""


class Conflict(OperatorError):
    """The Kubernetes object exists already, or changed since it was read."""


class Forbidden(OperatorError):
    """The operator's role may not do this: its RBAC or its database role has to change."""


class Refused(OperatorError):
    """The other side understood and said no: invalid, or of a shape that this version does not know."""


class DatabaseRefused(OperatorError):
    """Postgres answered and said no: wrong password, missing role, no schema, not a URI."""


class Superseded(OperatorError):
    """A newer leader's term or a newer generation of the object is recorded: this decision is void."""


class Deposed(Superseded):
    """
    A database says to know a newer leader's term than ours: this process must not write before it has seen its Lease.

    leader_term: that term, 0 where it was not told.
    """

    def __init__(self, message: str, *, leader_term: int = 0) -> None:
        super().__init__(message)
        self.leader_term = leader_term


class LeaseLost(OperatorError):
    """This process led and does so no more: it has to end."""


class SlugTaken(OperatorError):
    """
    The slug belongs to another team.

    holder: uid and namespace of the MemoryTeam that has to be gone before the slug may be adopted.
    """

    def __init__(self, message: str, *, holder: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.holder = holder


class SpecError(OperatorError, ValueError):
    """The object asks for what cannot be: its author has to change it; the message names the field."""


class RowNotFound(OperatorError):
    """The team, project or key row that the call names does not exist."""


class LimitReached(OperatorError):
    """A hard limit of the team forbids one row more."""
