import pytest

from commonplace_runtime import contract
from commonplace_runtime.domain.scopes import Access, is_grantable

OPENS = {
    "memories:read": {"READ", "JOBS", "AUDIT", "TOOLS"},
    "memories:write": {"EVENTS", "SESSIONS", "WRITE", "TOOLS"},
    "events:write": {"EVENTS"},
    "sessions:write": {"SESSIONS"},
    "observations:read": {"READ", "TOOLS"},
    "jobs:read": {"JOBS"},
    "audit:read": {"AUDIT", "AUDIT_CONTENT"},
    "memories:admin": {"PAYLOADS", "AUDIT", "AUDIT_CONTENT"},
    "admin": {"PAYLOADS", "AUDIT", "AUDIT_CONTENT"},
    "*": set(Access.__members__),
    "local-dev": set(),
}


@pytest.mark.parametrize("scope", OPENS)
def test_each_scope_opens_these_families_and_no_other(scope: str) -> None:
    assert {access.name for access in Access if access.is_open_to(frozenset({scope}))} == OPENS[scope]


def test_every_scope_that_a_key_may_carry_opens_something() -> None:
    assert set(contract.SCOPES) <= set(OPENS)
    assert all(OPENS[scope] for scope in contract.SCOPES)


@pytest.mark.parametrize("scope", [*contract.SCOPES, "admin", "local-dev"])
@pytest.mark.parametrize("held", [[], ["memories:read"], ["memories:write", "audit:read"], ["admin", "memories:read"]])
def test_what_is_granted_opens_nothing_more(held: list[str], scope: str) -> None:
    opened: set[str] = set().union(*(OPENS[one] for one in held))
    if is_grantable(scope, frozenset(held)):
        assert OPENS[scope] <= opened
        assert scope != "*"
    else:
        assert scope not in held


def test_everything_may_grant_everything() -> None:
    assert all(is_grantable(scope, frozenset({"*"})) for scope in contract.SCOPES)
