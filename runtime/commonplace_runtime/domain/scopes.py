"""
Which scopes open which family of routes.

claude-mem's own installer issues hook keys with scopes that its own server never accepts; both vocabularies
work here, and so does `admin`, an older word for `memories:admin`. Writing does not imply reading. Whoever may read the
audit without AUDIT_CONTENT is not shown what other actors wrote into it.
"""

from enum import Enum


class Access(Enum):
    """A family of routes; the value holds the scopes of which any one opens it."""

    EVENTS = frozenset({"memories:write", "events:write", "*"})
    SESSIONS = frozenset({"memories:write", "sessions:write", "*"})
    READ = frozenset({"memories:read", "observations:read", "*"})
    JOBS = frozenset({"memories:read", "jobs:read", "*"})
    WRITE = frozenset({"memories:write", "*"})
    PAYLOADS = frozenset({"memories:admin", "admin", "*"})
    AUDIT = frozenset({"audit:read", "memories:read", "memories:admin", "admin", "*"})
    AUDIT_CONTENT = frozenset({"audit:read", "memories:admin", "admin", "*"})
    TOOLS = frozenset({"memories:read", "observations:read", "memories:write", "*"})
    """The MCP tools that read and write: reading or writing opens the door, and each tool asks for its own family."""

    def is_open_to(self, scopes: frozenset[str]) -> bool:
        """Whether a key with these scopes may use the family."""
        return not self.value.isdisjoint(scopes)


def is_grantable(scope: str, held: frozenset[str]) -> bool:
    """Whether a key with the scopes `held` may give away `scope`: one that opens nothing which the key cannot open."""
    if "*" in held or scope in held:
        return True
    opened = [access for access in Access if scope in access.value]
    return scope != "*" and bool(opened) and all(access.is_open_to(held) for access in opened)
