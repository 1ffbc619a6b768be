"""
Which scopes open which family of routes.

claude-mem's own installer issues hook keys with scopes that its own server never accepts; both vocabularies
work here. Writing does not imply reading.
"""

from enum import Enum


class Access(Enum):
    """A family of routes; the value holds the scopes of which any one opens it."""

    EVENTS = frozenset({"memories:write", "events:write", "*"})
    SESSIONS = frozenset({"memories:write", "sessions:write", "*"})
    READ = frozenset({"memories:read", "observations:read", "*"})
    JOBS = frozenset({"memories:read", "jobs:read", "*"})
    WRITE = frozenset({"memories:write", "*"})
    TOOLS = frozenset({"memories:read", "observations:read", "memories:write", "*"})
    """The MCP tools that read and write: reading or writing opens the door, and each tool asks for its own family."""
    PAYLOADS = frozenset({"memories:admin", "*"})

    def is_open_to(self, scopes: frozenset[str]) -> bool:
        """Whether a key with these scopes may use the family."""
        return not self.value.isdisjoint(scopes)
