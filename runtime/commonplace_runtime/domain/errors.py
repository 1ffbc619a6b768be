"""Faults sorted by who must act. No HTTP here: each entrypoint has one table from class to answer."""


class DomainError(Exception):
    """Something a caller or time must put right. `code` is stable and part of the API."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(DomainError):
    """The caller sent something that can never work."""

    code = "invalid_input"


class NotAuthenticated(DomainError):
    """No key was presented."""

    code = "not_authenticated"


class NotPermitted(DomainError):
    """The key is unknown, revoked, expired or does not reach that far."""

    code = "not_permitted"


class NotFound(DomainError):
    """No such thing in this team."""

    code = "not_found"


class Conflict(DomainError):
    """The thing is in a state that forbids this."""

    code = "conflict"


class RateLimited(DomainError):
    """Too many requests in this minute."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QuotaExceeded(DomainError):
    """A monthly cap is used up."""

    code = "quota_exceeded"

    def __init__(self, message: str, *, used: int, cap: int) -> None:
        super().__init__(message)
        self.used = used
        self.cap = cap


class Unavailable(DomainError):
    """A store or provider does not answer: the same request may work later."""

    code = "unavailable"
